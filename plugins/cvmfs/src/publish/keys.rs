//! The two key pairs of a repository.
//!
//! The *master key* signs the whitelist, nothing else, and can be kept offline; its public half is what sites give to
//! their clients. The *signing key* signs every manifest; its certificate's fingerprint is on the whitelist. Files are named as the
//! reference tools name them (`<fqrn>.masterkey`, `.pub`, `.key`, `.crt`), so that keys can be taken over in both directions.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use der::pem::LineEnding;
use rand_core::OsRng;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use rsa::traits::PublicKeyParts as _;
use rsa::{Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha1::{Digest as _, Sha1};

use super::certificate;
use super::error::{PublishError, io_error};
use crate::client::hash::Algorithm;

/// Key files are a few kilobytes.
const KEY_LIMIT: u64 = 64 * 1024;
const KEY_BITS: usize = 2048;

/// Keys that sign repositories. Never printed; `Debug` shows nothing of them.
#[derive(Clone)]
pub struct SigningKeys {
    /// Absent when it is kept offline: then only the whitelist cannot be signed.
    master: Option<RsaPrivateKey>,
    master_public: RsaPublicKey,
    signing: RsaPrivateKey,
    certificate_pem: String,
    certificate_der: Vec<u8>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").finish_non_exhaustive()
    }
}

impl SigningKeys {
    /// New keys (RSA 2048) and a self-signed certificate that names the repository.
    ///
    /// # Errors
    /// [`PublishError::Key`] when the system has no random numbers.
    pub fn generate(fqrn: &str) -> Result<Self, PublishError> {
        let failed = |reason: String| PublishError::Key { what: format!("new keys of {fqrn}"), reason };
        let master = RsaPrivateKey::new(&mut OsRng, KEY_BITS).map_err(|error| failed(error.to_string()))?;
        let signing = RsaPrivateKey::new(&mut OsRng, KEY_BITS).map_err(|error| failed(error.to_string()))?;
        let (certificate_pem, certificate_der) = certificate::self_signed(fqrn, &signing).map_err(failed)?;
        let master_public = master.to_public_key();
        Ok(SigningKeys { master: Some(master), master_public, signing, certificate_pem, certificate_der })
    }

    /// Reads `<directory>/<fqrn>.{key,crt,pub,masterkey}`; the last may be missing.
    ///
    /// # Errors
    /// [`PublishError::Io`] for a file that cannot be read, [`PublishError::Key`] for one that is no key, that others may read, or
    /// that does not fit to the others.
    pub fn load(directory: &Path, fqrn: &str) -> Result<Self, PublishError> {
        let file = |extension: &str| directory.join(format!("{fqrn}.{extension}"));
        let signing = private_key(&file("key"))?;
        let certificate_file = file("crt");
        let certificate_pem = read_text(&certificate_file)?;
        let (certificate_der, certified) = certificate::parse(&certificate_pem)
            .map_err(|reason| PublishError::Key { what: certificate_file.display().to_string(), reason })?;
        if certified != signing.to_public_key() {
            return Err(PublishError::Key {
                what: certificate_file.display().to_string(),
                reason: format!("is the certificate of another key than {}", file("key").display()),
            });
        }
        let master_file = file("masterkey");
        let master = master_file.exists().then(|| private_key(&master_file)).transpose()?;
        let public_file = file("pub");
        let master_public = match (&master, public_file.exists()) {
            (Some(master), false) => master.to_public_key(),
            (_, _) => public_key(&public_file)?,
        };
        if let Some(master) = &master
            && master.to_public_key() != master_public
        {
            return Err(PublishError::Key {
                what: public_file.display().to_string(),
                reason: format!("is not the public half of {}", master_file.display()),
            });
        }
        Ok(SigningKeys { master, master_public, signing, certificate_pem, certificate_der })
    }

    /// Writes the files that [`load`](Self::load) reads: private keys with mode 0600, nothing overwritten. The directory is made
    /// (mode 0700) when missing.
    ///
    /// # Errors
    /// [`PublishError::Io`], also when one of the files is there already.
    pub fn store(&self, directory: &Path, fqrn: &str) -> Result<(), PublishError> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(io_error("create", directory))?;
        let file = |extension: &str| directory.join(format!("{fqrn}.{extension}"));
        let pem = |key: &RsaPrivateKey, path: &Path| {
            key.to_pkcs8_pem(LineEnding::LF).map_err(|error| PublishError::Key {
                what: path.display().to_string(),
                reason: error.to_string(),
            })
        };
        if let Some(master) = &self.master {
            let path = file("masterkey");
            write_new(&path, pem(master, &path)?.as_bytes(), 0o600)?;
        }
        let path = file("key");
        write_new(&path, pem(&self.signing, &path)?.as_bytes(), 0o600)?;
        write_new(&file("crt"), self.certificate_pem.as_bytes(), 0o644)?;
        write_new(&file("pub"), self.public_key_pem().as_bytes(), 0o644)?;
        fs::File::open(directory).and_then(|open| open.sync_all()).map_err(io_error("sync", directory))
    }

    /// The master public key that clients need (`PUBLIC KEY` PEM).
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.master_public.to_public_key_pem(LineEnding::LF).expect("an RSA public key can always be encoded")
    }

    /// The signing key's certificate in PEM: the content of an `X` object.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate's fingerprint as a whitelist line has it: `AB:CD:…` and the algorithm's tag.
    pub(super) fn fingerprint(&self, algorithm: Algorithm) -> String {
        let digest = algorithm.digest(&self.certificate_der);
        let pairs: Vec<String> = digest.bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":") + &algorithm.tag().to_uppercase()
    }

    /// Whether whitelists can be signed.
    pub(super) fn has_master(&self) -> bool {
        self.master.is_some()
    }

    /// Signs a manifest's hash line: PKCS #1 v1.5 with a SHA-1 `DigestInfo`, whatever the repository's algorithm.
    pub(super) fn sign_manifest(&self, line: &[u8]) -> Vec<u8> {
        self.signing
            .sign(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(line))
            .expect("a SHA-1 digest fits into an RSA key of 1024 bits and more")
    }

    /// Signs a whitelist's hash line: type-1 padding over the text itself, no `DigestInfo`.
    pub(super) fn sign_whitelist(&self, line: &[u8]) -> Result<Vec<u8>, PublishError> {
        let master = self.master.as_ref().ok_or_else(|| PublishError::Key {
            what: "master key".to_owned(),
            reason: "is not here, and only it signs whitelists: sign where it is kept, or put it back"
                .to_owned(),
        })?;
        master
            .sign(Pkcs1v15Sign::new_unprefixed(), line)
            .map_err(|error| PublishError::Key { what: "master key".to_owned(), reason: error.to_string() })
    }
}

fn read_text(path: &Path) -> Result<String, PublishError> {
    let refused =
        |reason: &str| PublishError::Key { what: path.display().to_string(), reason: reason.to_owned() };
    let metadata = fs::metadata(path).map_err(io_error("read", path))?;
    if metadata.len() > KEY_LIMIT {
        return Err(refused("is too large for a key or certificate"));
    }
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    String::from_utf8(bytes).map_err(|_| refused("is no PEM text"))
}

fn private_key(path: &Path) -> Result<RsaPrivateKey, PublishError> {
    let refused = |reason: String| PublishError::Key { what: path.display().to_string(), reason };
    let metadata = fs::metadata(path).map_err(io_error("read", path))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(refused(format!("can be read by others: chmod 600 {}", path.display())));
    }
    let text = read_text(path)?;
    let key = RsaPrivateKey::from_pkcs8_pem(&text).or_else(|_| RsaPrivateKey::from_pkcs1_pem(&text));
    // The decoder's own words could repeat what it read.
    let key = key.map_err(|_| refused("is no RSA private key in PEM without a passphrase".to_owned()))?;
    if key.size() < 128 {
        return Err(refused("is shorter than 1024 bits".to_owned()));
    }
    Ok(key)
}

fn public_key(path: &Path) -> Result<RsaPublicKey, PublishError> {
    use rsa::pkcs8::DecodePublicKey as _;
    RsaPublicKey::from_public_key_pem(&read_text(path)?).map_err(|error| PublishError::Key {
        what: path.display().to_string(),
        reason: format!("is no RSA public key in PEM: {error}"),
    })
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), PublishError> {
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(io_error("create", path))
}
