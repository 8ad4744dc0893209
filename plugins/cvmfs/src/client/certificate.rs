//! RSA keys: master keys that sign whitelists, and certificates that sign manifests.
//!
//! Two different signatures are in use. A whitelist's is the hash line itself under PKCS#1 type-1 padding, without a
//! `DigestInfo`; a manifest's is an ordinary PKCS#1 v1.5 signature with SHA-1 over the hash line (always SHA-1,
//! whatever the repository's algorithm). A certificate's dates and issuer do not matter: its fingerprint is on the
//! whitelist or not.

use std::io::Read as _;

use der::Decode as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use sha1::{Digest as _, Sha1};
use x509_cert::Certificate as X509;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::hash::{Algorithm, Digest};
use super::letter::BLOB_LIMIT;

/// Allowed lengths of an RSA modulus.
const KEY_BITS: std::ops::RangeInclusive<usize> = 1024..=8192;

/// Why a text is no usable key or certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too long to be one.
    #[error("it has more than {BLOB_LIMIT} bytes")]
    TooLong,
    /// Not PEM of the right kind.
    #[error("it is no PEM text of the kind {0}")]
    Pem(&'static str),
    /// The content is damaged.
    #[error("its content is malformed")]
    Der,
    /// Another algorithm than RSA.
    #[error("it holds no RSA key")]
    NotRsa,
    /// A modulus of a length that is not allowed.
    #[error("its RSA key has {0} bits; {low} to {high} are allowed", low = KEY_BITS.start(), high = KEY_BITS.end())]
    Bits(usize),
    /// Numbers that no RSA key has.
    #[error("its RSA key is not sane")]
    Insane,
    /// The zlib stream around a certificate is broken.
    #[error("its compression is broken")]
    Inflate,
}

/// A public key that signs whitelists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKey(RsaPublicKey);

/// A certificate that signs manifests.
#[derive(Debug, Clone)]
pub struct Certificate {
    der: Vec<u8>,
    key: RsaPublicKey,
}

impl MasterKey {
    /// Reads PEM of the kind `PUBLIC KEY`.
    ///
    /// # Errors
    /// It is none, or not RSA of an allowed length.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem_content(text, "PUBLIC KEY")?;
        let info = SubjectPublicKeyInfoOwned::from_der(&der).map_err(|_| KeyError::Der)?;
        rsa_key(&info).map(MasterKey)
    }

    /// Whether it signed this hash line as master keys sign whitelists.
    pub fn signed(&self, hash_line: &str, signature: &[u8]) -> bool {
        self.0.verify(Pkcs1v15Sign::new_unprefixed(), hash_line.as_bytes(), signature).is_ok()
    }
}

impl Certificate {
    /// Reads a certificate object as it is transferred: PEM under zlib.
    ///
    /// # Errors
    /// Not that, or the key in it is not RSA of an allowed length.
    pub fn from_object(transferred: &[u8]) -> Result<Self, KeyError> {
        if transferred.len() > BLOB_LIMIT {
            return Err(KeyError::TooLong);
        }
        let mut pem = Vec::new();
        flate2::read::ZlibDecoder::new(transferred)
            .take(BLOB_LIMIT as u64 + 1)
            .read_to_end(&mut pem)
            .map_err(|_| KeyError::Inflate)?;
        if pem.len() > BLOB_LIMIT {
            return Err(KeyError::TooLong);
        }
        Self::from_pem(&String::from_utf8(pem).map_err(|_| KeyError::Pem("CERTIFICATE"))?)
    }

    /// Reads PEM of the kind `CERTIFICATE`; the first one where there are several.
    ///
    /// # Errors
    /// It is none, or the key in it is not RSA of an allowed length.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = pem_content(text, "CERTIFICATE")?;
        let x509 = X509::from_der(&der).map_err(|_| KeyError::Der)?;
        let key = rsa_key(&x509.tbs_certificate.subject_public_key_info)?;
        Ok(Certificate { der, key })
    }

    /// The digest by which whitelists and blacklists name it.
    pub fn fingerprint(&self, algorithm: Algorithm) -> Digest {
        algorithm.digest(&self.der)
    }

    /// Whether it signed this hash line as certificates sign manifests.
    pub fn signed(&self, hash_line: &str, signature: &[u8]) -> bool {
        let hashed = Sha1::digest(hash_line.as_bytes());
        self.key.verify(Pkcs1v15Sign::new::<Sha1>(), &hashed, signature).is_ok()
    }
}

/// The bytes in the first block of a kind.
fn pem_content(text: &str, kind: &'static str) -> Result<Vec<u8>, KeyError> {
    if text.len() > BLOB_LIMIT {
        return Err(KeyError::TooLong);
    }
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let error = || KeyError::Pem(kind);
    let from = text.find(&begin).ok_or_else(error)?;
    let to = text[from..].find(&end).ok_or_else(error)? + from + end.len();
    let (label, der) = der::pem::decode_vec(&text.as_bytes()[from..to]).map_err(|_| error())?;
    if label == kind { Ok(der) } else { Err(error()) }
}

/// The RSA key of a key description, with its numbers within bounds.
fn rsa_key(info: &SubjectPublicKeyInfoOwned) -> Result<RsaPublicKey, KeyError> {
    if info.algorithm.oid != const_oid::db::rfc5912::RSA_ENCRYPTION {
        return Err(KeyError::NotRsa);
    }
    // RFC 8017 A.1.1: SEQUENCE { modulus INTEGER, publicExponent INTEGER }.
    let raw = info.subject_public_key.as_bytes().ok_or(KeyError::Der)?;
    let numbers = Vec::<der::asn1::Int>::from_der(raw).map_err(|_| KeyError::Der)?;
    let [modulus, exponent] = numbers.as_slice() else { return Err(KeyError::Der) };
    let (modulus, exponent) = (unsigned(modulus)?, unsigned(exponent)?);
    let bits = modulus.bits();
    if !KEY_BITS.contains(&bits) {
        return Err(KeyError::Bits(bits));
    }
    let odd = |number: &BigUint| number.to_bytes_le().first().is_some_and(|low| low % 2 == 1);
    if !odd(&modulus) || !odd(&exponent) {
        return Err(KeyError::Insane);
    }
    RsaPublicKey::new_with_max_size(modulus, exponent, *KEY_BITS.end()).map_err(|_| KeyError::Insane)
}

/// A number that is not negative.
fn unsigned(number: &der::asn1::Int) -> Result<BigUint, KeyError> {
    let bytes = number.as_bytes();
    match bytes.first() {
        Some(first) if *first < 0x80 => Ok(BigUint::from_bytes_be(bytes)),
        _ => Err(KeyError::Insane),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_keys_of_real_repositories_are_read() {
        for fqrn in fixtures::GOOD {
            let pem = std::fs::read_to_string(fixtures::public_key(fqrn)).unwrap();
            MasterKey::from_pem(&pem).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        let pem = std::fs::read_to_string(fixtures::public_key("mini.cern.ch")).unwrap();
        assert_eq!(MasterKey::from_pem("hello"), Err(KeyError::Pem("PUBLIC KEY")));
        assert_eq!(
            MasterKey::from_pem(&pem.replace("PUBLIC KEY", "RSA PUBLIC KEY")),
            Err(KeyError::Pem("PUBLIC KEY"))
        );
        assert_eq!(
            MasterKey::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
            Err(KeyError::Der)
        );
        assert_eq!(MasterKey::from_pem(&" ".repeat(BLOB_LIMIT + 1)), Err(KeyError::TooLong));
        // An EC key and a short RSA key, made with openssl.
        let elliptic = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYFSm2wZRf4VERcE7skTs60PYj08b\n\
            4ULtLkKrsWtJi5V1QbJ+7JvAySOY/Q4JrJ9i5l/wtOCsxOoiqhX1Pw0vGg==\n\
            -----END PUBLIC KEY-----\n";
        assert_eq!(MasterKey::from_pem(elliptic), Err(KeyError::NotRsa));
        let short = "-----BEGIN PUBLIC KEY-----\n\
            MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAPb8fUxnQCCXt+uZBTrU9b/JR+On8ohw\n\
            JYBX0GR78eD306J0PM9E1nKYJDoHcaTvLQJdNgS8TM7bH1FrLyulQc0CAwEAAQ==\n\
            -----END PUBLIC KEY-----\n";
        assert_eq!(MasterKey::from_pem(short), Err(KeyError::Bits(512)));
    }

    #[test]
    fn an_object_that_inflates_without_end_is_refused() {
        use std::io::Write as _;
        let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        bomb.write_all(&vec![0; 2 * BLOB_LIMIT]).unwrap();
        assert_eq!(Certificate::from_object(&bomb.finish().unwrap()).unwrap_err(), KeyError::TooLong);
        assert_eq!(Certificate::from_object(b"garbage").unwrap_err(), KeyError::Inflate);
    }
}
