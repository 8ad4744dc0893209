//! The signing key's certificate.
//!
//! Clients take nothing from it but the key: trust comes from the whitelist, which has its fingerprint. So it is self-signed, and
//! its dates only need to be plausible.

use std::str::FromStr as _;
use std::time::Duration;

use der::{DecodePem as _, Encode as _, EncodePem as _};
use rand_core::{OsRng, RngCore as _};
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use rsa::{RsaPrivateKey, RsaPublicKey};
use sha2::Sha256;
use x509_cert::Certificate;
use x509_cert::builder::{Builder as _, CertificateBuilder, Profile};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Validity;

/// Ten years: a repository may outlive its publisher's tools.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A certificate for `key` in PEM and DER.
pub(super) fn self_signed(fqrn: &str, key: &RsaPrivateKey) -> Result<(String, Vec<u8>), String> {
    let build = || -> Result<Certificate, Box<dyn std::error::Error>> {
        let subject = Name::from_str(&format!("CN={fqrn} CernVM-FS Release Managers"))?;
        let mut serial = [0_u8; 16];
        OsRng.fill_bytes(&mut serial);
        // Positive and never zero, as RFC 5280 wants it.
        serial[0] = serial[0] & 0x3f | 0x40;
        let spki = SubjectPublicKeyInfoOwned::try_from(key.to_public_key().to_public_key_der()?.as_bytes())?;
        let signer = SigningKey::<Sha256>::new(key.clone());
        let builder = CertificateBuilder::new(
            // The signer is its own issuer and no authority over others.
            Profile::Leaf {
                issuer: subject.clone(),
                enable_key_agreement: false,
                enable_key_encipherment: false,
            },
            SerialNumber::new(&serial)?,
            Validity::from_now(VALIDITY)?,
            subject,
            spki,
            &signer,
        )?;
        Ok(builder.build::<rsa::pkcs1v15::Signature>()?)
    };
    let certificate = build().map_err(|error| format!("cannot make a certificate: {error}"))?;
    let pem = certificate.to_pem(der::pem::LineEnding::LF).map_err(|error| error.to_string())?;
    let der = certificate.to_der().map_err(|error| error.to_string())?;
    Ok((pem, der))
}

/// DER bytes and public key of a certificate in PEM.
pub(super) fn parse(pem: &str) -> Result<(Vec<u8>, RsaPublicKey), String> {
    let certificate =
        Certificate::from_pem(pem).map_err(|error| format!("is no X.509 certificate in PEM: {error}"))?;
    let der = certificate.to_der().map_err(|error| error.to_string())?;
    let spki =
        certificate.tbs_certificate.subject_public_key_info.to_der().map_err(|error| error.to_string())?;
    let key = RsaPublicKey::from_public_key_der(&spki)
        .map_err(|error| format!("has no RSA key, and clients accept no other: {error}"))?;
    Ok((der, key))
}
