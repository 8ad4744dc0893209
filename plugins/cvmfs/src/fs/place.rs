//! How a catalog is named in the state file.
//!
//! ```text
//! u8 algorithm | digest [20] | u64 size (0: not known) | u16 length, mount point | u16 length, prefix | repository
//! ```

use crate::client::catalog::CatalogRef;
use crate::client::hash::{Algorithm, DIGEST_BYTES, Digest};

/// A catalog of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) repository: String,
    pub(crate) catalog: CatalogRef,
}

impl Place {
    /// The name; the same for equal places. Mount points are paths below PATH_MAX.
    pub(crate) fn encode(repository: &str, catalog: &CatalogRef) -> Vec<u8> {
        let mut name =
            Vec::with_capacity(33 + catalog.mountpoint.len() + catalog.prefix.len() + repository.len());
        name.push(catalog.digest.algorithm.catalog_bits() as u8);
        name.extend_from_slice(&catalog.digest.bytes);
        name.extend_from_slice(&catalog.size.unwrap_or(0).to_le_bytes());
        for path in [&catalog.mountpoint, &catalog.prefix] {
            let length = u16::try_from(path.len()).unwrap_or(u16::MAX);
            name.extend_from_slice(&length.to_le_bytes());
            name.extend_from_slice(&path[..usize::from(length)]);
        }
        name.extend_from_slice(repository.as_bytes());
        name
    }

    /// Reads a name; `None` if it is none.
    pub(crate) fn decode(name: &[u8]) -> Option<Place> {
        let (&algorithm, rest) = name.split_first()?;
        let (digest, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (mountpoint, rest) = path(rest)?;
        let (prefix, rest) = path(rest)?;
        let algorithm = Algorithm::from_catalog_bits(u32::from(algorithm))?;
        let size = Some(u64::from_le_bytes(*size)).filter(|size| *size > 0);
        Some(Place {
            repository: std::str::from_utf8(rest).ok()?.to_owned(),
            catalog: CatalogRef { digest: Digest { algorithm, bytes: *digest }, size, mountpoint, prefix },
        })
    }
}

fn path(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (path, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((path.to_vec(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let digest = Algorithm::Shake128.digest(b"x");
        for (size, mountpoint, prefix) in [(None, "", ""), (Some(9), "/.cvmfs/snapshots/v1", "/a")] {
            let catalog = CatalogRef { digest, size, mountpoint: mountpoint.into(), prefix: prefix.into() };
            let name = Place::encode("test.cern.ch", &catalog);
            assert_eq!(Place::decode(&name), Some(Place { repository: "test.cern.ch".to_owned(), catalog }));
            for cut in 0..33 {
                assert_eq!(Place::decode(&name[..cut]), None, "{cut}");
            }
        }
    }
}
