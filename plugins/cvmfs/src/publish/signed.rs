//! The two signed texts of a repository: `.cvmfspublished` and `.cvmfswhitelist`.
//!
//! Both are lines, then `--`, then the hash of everything before it, then a raw signature over that hash's text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::PublishError;
use super::keys::SigningKeys;
use crate::client::hash::{Algorithm, Digest, PathHash};

/// The fields of a manifest that a writer sets, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ManifestText {
    /// `C`, root catalog.
    pub(super) root: Digest,
    /// `B`, its bytes before compression.
    pub(super) root_size: u64,
    /// `D`, seconds.
    pub(super) ttl: u64,
    /// `S`.
    pub(super) revision: u64,
    /// `G`.
    pub(super) garbage_collectable: bool,
    /// `N`.
    pub(super) fqrn: String,
    /// `X`.
    pub(super) certificate: Digest,
    /// `H`.
    pub(super) history: Option<Digest>,
    /// `T`, seconds since 1970.
    pub(super) published: i64,
    /// `M`.
    pub(super) metainfo: Option<Digest>,
}

impl ManifestText {
    /// Everything before the `--` line.
    pub(super) fn text(&self) -> String {
        let yes_no = |value: bool| if value { "yes" } else { "no" };
        let mut text = format!(
            "C{}\nB{}\nR{}\nD{}\nS{}\nG{}\nAno\nN{}\nX{}\n",
            self.root,
            self.root_size,
            PathHash::of(b"").hex(),
            self.ttl,
            self.revision,
            yes_no(self.garbage_collectable),
            self.fqrn,
            self.certificate,
        );
        if let Some(history) = &self.history {
            text += &format!("H{history}\n");
        }
        text += &format!("T{}\n", self.published);
        if let Some(metainfo) = &self.metainfo {
            text += &format!("M{metainfo}\n");
        }
        text
    }

    /// Reads what [`text`](Self::text) or the reference tools wrote, signature and all. This is the writer's own repository on its own
    /// disk: what it says is checked for sense, not for its signature.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        let end = file.windows(4).position(|window| window == b"\n--\n").ok_or("has no signature")?;
        let text = std::str::from_utf8(&file[..end]).map_err(|_| "is no text".to_owned())?;
        let field = |letter: char| text.lines().rev().find_map(|line| line.strip_prefix(letter));
        let need = |letter: char| field(letter).ok_or_else(|| format!("has no line {letter}"));
        let number = |letter: char| -> Result<u64, String> {
            need(letter)?.parse().map_err(|_| format!("line {letter} is no number"))
        };
        let digest = |value: &str| value.parse::<Digest>().map_err(|error| error.to_string());
        Ok(ManifestText {
            root: digest(need('C')?)?,
            root_size: field('B').and_then(|size| size.parse().ok()).unwrap_or(0),
            ttl: number('D')?,
            revision: number('S')?,
            garbage_collectable: field('G') == Some("yes"),
            fqrn: need('N')?.to_owned(),
            certificate: digest(need('X')?)?,
            history: field('H').map(digest).transpose()?,
            published: field('T').and_then(|time| time.parse().ok()).unwrap_or(0),
            metainfo: field('M').map(digest).transpose()?,
        })
    }

    /// The whole file.
    pub(super) fn sign(&self, keys: &SigningKeys) -> Vec<u8> {
        sign_manifest_text(&self.text(), self.root.algorithm, keys)
    }
}

/// Appends hash and signature to a manifest's text.
pub(super) fn sign_manifest_text(text: &str, algorithm: Algorithm, keys: &SigningKeys) -> Vec<u8> {
    let line = algorithm.digest(text.as_bytes()).to_string();
    let signature = keys.sign_manifest(line.as_bytes());
    [text.as_bytes(), b"--\n", line.as_bytes(), b"\n", &signature].concat()
}

/// A whitelist that lists the keys' certificate, signed.
pub(super) fn whitelist(
    fqrn: &str,
    keys: &SigningKeys,
    algorithm: Algorithm,
    now: SystemTime,
    validity: Duration,
) -> Result<Vec<u8>, PublishError> {
    let text =
        format!("{}\nE{}\nN{fqrn}\n{}\n", stamp(now), stamp(now + validity), keys.fingerprint(algorithm));
    sign_whitelist_text(&text, algorithm, keys)
}

/// Appends hash and signature to a whitelist's text.
pub(super) fn sign_whitelist_text(
    text: &str,
    algorithm: Algorithm,
    keys: &SigningKeys,
) -> Result<Vec<u8>, PublishError> {
    let line = algorithm.digest(text.as_bytes()).to_string();
    let signature = keys.sign_whitelist(line.as_bytes())?;
    Ok([text.as_bytes(), b"--\n", line.as_bytes(), b"\n", &signature].concat())
}

/// Seconds since 1970; times before it count as 1970.
pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// `YYYYMMDDhhmmss` in UTC.
fn stamp(time: SystemTime) -> String {
    let seconds = unix_seconds(time);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day counted from 1970-01-01, by counting years from March so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let from_march_0 = days + 719_468;
    let era = from_march_0.div_euclid(146_097);
    let day_of_era = from_march_0.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_calendar_dates() {
        for (seconds, text) in [
            (0, "19700101000000"),
            (951_782_399, "20000228235959"),
            (951_782_400, "20000229000000"),
            (1_795_247_724, "20261121075524"),
            (4_107_542_400, "21000301000000"),
        ] {
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn manifests_of_the_reference_tools_come_out_again() {
        for fqrn in ["test.cern.ch", "shake128.cern.ch", "snap.cern.ch", "nocomp.cern.ch"] {
            let file = std::fs::read(fixtures::repository(fqrn).join(".cvmfspublished")).unwrap();
            let manifest = ManifestText::parse(&file).unwrap();
            let end = file.windows(4).position(|window| window == b"\n--\n").unwrap() + 1;
            let theirs: String = String::from_utf8(file[..end].to_vec()).unwrap();
            // The reflog is the server's own business.
            let theirs: String = theirs
                .lines()
                .filter(|line| !line.starts_with('Y'))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(manifest.text(), theirs);
        }
    }
}
