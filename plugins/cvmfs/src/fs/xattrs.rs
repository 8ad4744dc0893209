//! Extended attributes: those that were published, and the client's own, which tell about the client.
//!
//! Names and values of the client's own ones are those of the C++ client, which scripts of sites read. Those that
//! describe parts this client does not have are left out. They can be read by name everywhere; listed are they as
//! `CVMFS_MAGIC_XATTRS_VISIBILITY` says.

use std::time::{Instant, SystemTime};

use super::error::FsError;
use super::filesystem::{Shared, Target};
use super::served::Node;
use super::statistics;
use crate::client::catalog::{Kind, Located};
use crate::client::config::XattrVisibility;
use crate::client::hash::{Compression, ObjectId, Suffix};
use crate::client::xattr;

/// About the repository and the client.
const ANYWHERE: &[&str] = &[
    "user.fqrn",
    "user.revision",
    "user.root_hash",
    "user.tag",
    "user.host",
    "user.host_list",
    "user.proxy",
    "user.proxy_list",
    "user.timeout",
    "user.timeout_direct",
    "user.expires",
    "user.nclg",
    "user.nioerr",
    "user.ndownload",
    "user.pid",
    "user.repo_counters",
    "user.uptime",
    "user.version",
];
/// About one regular file.
const FILE: &[&str] = &[
    "user.hash",
    "user.lhash",
    "user.chunks",
    "user.chunk_list",
    "user.compression",
    "user.direct_io",
    "user.external_file",
];
/// A symlink's target before variables are replaced. Linux allows no `user.` attributes on symlinks.
const RAW_LINK: &str = "xfsroot.rawlink";
/// What getxattr(2) can carry (XATTR_SIZE_MAX).
const VALUE_MAX: usize = 65536;

/// One attribute.
pub(crate) async fn get(shared: &Shared, id: u64, name: &[u8]) -> Result<Vec<u8>, FsError> {
    let node = match shared.target(id).await? {
        Target::Entry(node) => node,
        Target::Top => return Err(FsError::NoAttribute),
    };
    let own = std::str::from_utf8(name).ok().filter(|name| {
        ANYWHERE.contains(name) || FILE.contains(name) || *name == RAW_LINK || *name == "user.rawlink"
    });
    // Most programs ask for attributes that nothing has (`security.capability` at each exec).
    let located = node.located().await?;
    let value = match own {
        Some(own) => magic(shared, &node, &located, own).await?,
        None => None,
    };
    let published = || located.dirent.xattrs.as_deref().and_then(|blob| xattr::find(blob, name));
    let value = value.or_else(|| published().map(<[u8]>::to_vec));
    let mut value = value.ok_or(FsError::NoAttribute)?;
    value.truncate(VALUE_MAX);
    Ok(value)
}

/// All names, each with a NUL after it.
pub(crate) async fn list(shared: &Shared, id: u64) -> Result<Vec<u8>, FsError> {
    let node = match shared.target(id).await? {
        Target::Entry(node) => node,
        Target::Top => return Ok(Vec::new()),
    };
    let located = node.located().await?;
    let mut names = Vec::new();
    let mut add = |name: &[u8]| {
        names.extend_from_slice(name);
        names.push(0);
    };
    for (name, _) in located.dirent.xattrs.as_deref().map(xattr::parse).unwrap_or_default() {
        add(name);
    }
    let shown = match node.served.view.xattrs {
        XattrVisibility::Never => false,
        XattrVisibility::Always => true,
        XattrVisibility::RootOnly => node.path.is_empty(),
    };
    if shown {
        let symlink = matches!(located.dirent.kind, Kind::Symlink(_));
        let file = matches!(located.dirent.kind, Kind::Regular(_));
        ANYWHERE.iter().filter(|_| !symlink).for_each(|name| add(name.as_bytes()));
        FILE.iter().filter(|_| file).for_each(|name| add(name.as_bytes()));
        symlink.then(|| add(RAW_LINK.as_bytes()));
    }
    Ok(names)
}

/// One of the client's own attributes; `None` where it does not apply.
async fn magic(
    shared: &Shared,
    node: &Node,
    located: &Located,
    name: &str,
) -> Result<Option<Vec<u8>>, FsError> {
    if FILE.contains(&name) {
        return of_file(node, located, name).await;
    }
    let served = &node.served;
    let snapshot = served.repository.snapshot();
    let text = match name {
        "user.fqrn" => served.name().to_owned(),
        "user.revision" => snapshot.revision().to_string(),
        "user.root_hash" => snapshot.root().digest.to_string(),
        "user.tag" => served.about.tag.clone(),
        "user.host" => served.about.hosts.first().cloned().unwrap_or_default(),
        "user.host_list" => served.about.hosts.join(";"),
        "user.proxy" => served.about.proxies.split([';', '|']).next().unwrap_or_default().to_owned(),
        "user.proxy_list" => served.about.proxies.clone(),
        "user.timeout" => served.about.timeout.as_secs().to_string(),
        "user.timeout_direct" => served.about.timeout_direct.as_secs().to_string(),
        // Minutes until the next look for a revision.
        "user.expires" => match served.repository.next_refresh() {
            Some(at) => (at.saturating_duration_since(Instant::now()).as_secs() / 60).to_string(),
            None => "never (fixed root catalog)".to_owned(),
        },
        "user.nclg" => snapshot.mounted_count().to_string(),
        "user.nioerr" => shared.requests.errors().to_string(),
        "user.ndownload" => statistics::downloads(&served.fetcher.stats()).to_string(),
        "user.pid" => std::process::id().to_string(),
        "user.repo_counters" => statistics::repository_counters(&snapshot),
        // Minutes.
        "user.uptime" => {
            let up = SystemTime::now().duration_since(served.started).unwrap_or_default();
            (up.as_secs() / 60).to_string()
        }
        "user.version" => concat!("volplane ", env!("CARGO_PKG_VERSION")).to_owned(),
        _ => {
            return Ok(match &located.dirent.kind {
                Kind::Symlink(raw) => Some(raw.clone()),
                Kind::Regular(_)
                | Kind::Directory { .. }
                | Kind::Fifo
                | Kind::Socket
                | Kind::CharDevice(_)
                | Kind::BlockDevice(_) => None,
            });
        }
    };
    Ok(Some(text.into_bytes()))
}

async fn of_file(node: &Node, located: &Located, name: &str) -> Result<Option<Vec<u8>>, FsError> {
    let Kind::Regular(content) = &located.dirent.kind else { return Ok(None) };
    let yes_or_no = |value: bool| if value { "1" } else { "0" }.to_owned();
    let chunks = if content.chunked && matches!(name, "user.chunks" | "user.chunk_list") {
        node.served.repository.catalogs().chunks(&located.catalog, &node.path, content).await?
    } else {
        Vec::new()
    };
    let text = match name {
        "user.hash" => match content.digest {
            Some(digest) if !content.chunked => digest.to_string(),
            _ => return Ok(None),
        },
        // The content of a cached object is checked against a digest that was made while its hash was.
        "user.lhash" => match content.digest {
            Some(digest) if !content.chunked => {
                let id = ObjectId { digest, suffix: Suffix::None };
                match node.served.fetcher.cached(&id, Some(content.size)) {
                    Some(_) => digest.to_string(),
                    None => "Not in cache".to_owned(),
                }
            }
            _ => return Ok(None),
        },
        "user.chunks" if content.chunked => chunks.len().to_string(),
        "user.chunks" => "1".to_owned(),
        "user.chunk_list" => {
            let mut text = "hash,offset,size\n".to_owned();
            let whole = content.digest.filter(|_| !content.chunked);
            if let Some(digest) = whole {
                text.push_str(&format!("{digest},0,{}\n", content.size));
            }
            for chunk in chunks {
                text.push_str(&format!("{},{},{}\n", chunk.digest, chunk.offset, chunk.size));
                if text.len() > VALUE_MAX {
                    break;
                }
            }
            text
        }
        "user.compression" => match content.compression {
            Compression::Zlib => "zlib",
            Compression::None => "none",
        }
        .to_owned(),
        "user.direct_io" => yes_or_no(content.direct_io),
        "user.external_file" => yes_or_no(content.external),
        _ => return Ok(None),
    };
    Ok(Some(text.into_bytes()))
}
