//! The whitelist `.cvmfswhitelist`: which certificates may sign a repository, said by the holder of a master key.
//!
//! Line 1 is the time it was made, line 2 `E` and the time it expires (compared to the hour), line 3 `N` and the
//! repository, then flags, then fingerprints of certificates, each in an algorithm of its own. Format: CernVM-FS
//! `whitelist.cc`. A [`Whitelist`] is only parsed; [`super::trust::verify`] says whether it may be believed.

use std::time::{SystemTime, UNIX_EPOCH};

use super::hash::Digest;
use super::letter::{Letter, LetterError};

/// What a whitelist says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whitelist {
    /// The hour (since 1970, UTC) from which on it is no longer good.
    pub expires_hour: u64,
    /// The expiry as it is written, `YYYYMMDDhhmmss` UTC; for messages.
    pub expires: String,
    /// The repository.
    pub repository: String,
    /// It asks for a PKCS#7 signature (`Vpkcs7`), which this client cannot check.
    pub pkcs7: bool,
    /// It asks for the certificate's own chain (`Wcachain`), which this client cannot check.
    pub ca_chain: bool,
    /// Certificates that may sign.
    pub fingerprints: Vec<Digest>,
}

/// Why a blob is no whitelist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhitelistError {
    /// Its outer form is broken.
    #[error(transparent)]
    Letter(#[from] LetterError),
    /// The first line is no time.
    #[error("line 1 is not a time of 14 digits")]
    Created,
    /// The second line is no expiry.
    #[error("line 2 is not `E` and a time of 14 digits")]
    Expiry,
    /// The third line is no name.
    #[error("line 3 is not `N` and a repository name")]
    Name,
}

impl Whitelist {
    /// Parses the blob, with nothing verified but its form.
    ///
    /// # Errors
    /// Anything that is not a whitelist's form. Never panics.
    pub fn parse(blob: &[u8]) -> Result<Self, WhitelistError> {
        Self::from_letter(&Letter::split(blob)?)
    }

    /// The same of a blob already taken apart.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_letter(letter: &Letter<'_>) -> Result<Self, WhitelistError> {
        // Comments may hold bytes that are no text; they do not matter.
        let text = String::from_utf8_lossy(letter.text);
        let mut lines = text.lines().peekable();
        let created = lines.next().ok_or(WhitelistError::Created)?;
        if created.len() != 14 || !created.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(WhitelistError::Created);
        }
        let expires = lines.next().and_then(|line| line.strip_prefix('E')).ok_or(WhitelistError::Expiry)?;
        let expires_hour = hour_of(expires).ok_or(WhitelistError::Expiry)?;
        let repository = lines.next().and_then(|line| line.strip_prefix('N')).ok_or(WhitelistError::Name)?;
        let pkcs7 = lines.next_if(|line| line.starts_with('V')).is_some();
        let ca_chain = lines.next_if(|line| line.starts_with('W')).is_some();
        Ok(Whitelist {
            expires_hour,
            expires: expires.to_owned(),
            repository: repository.to_owned(),
            pkcs7,
            ca_chain,
            fingerprints: lines.filter_map(fingerprint).collect(),
        })
    }

    /// Whether its time is over. The hour of expiry itself is over.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        // A clock before 1970 is broken; nothing is good then.
        now.duration_since(UNIX_EPOCH).map_or(true, |since| since.as_secs() / 3600 >= self.expires_hour)
    }
}

/// Reads `AB:CD:…[-RMD160]`, comments after a space, tab or `#`; `None` for what is no fingerprint.
pub(super) fn fingerprint(line: &str) -> Option<Digest> {
    let word = line.split([' ', '\t', '#']).next()?;
    if word.len() > 80 {
        return None;
    }
    word.replace(':', "").to_ascii_lowercase().parse().ok()
}

/// The hour since 1970 of `YYYYMMDDhhmmss` in UTC; minutes and seconds are cut off.
fn hour_of(text: &str) -> Option<u64> {
    if text.len() != 14 || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let (year, month, day, hour) = (number(0, 4)?, number(4, 6)?, number(6, 8)?, number(8, 10)?);
    let days = days_since_1970(year, month, day)?;
    (hour < 24).then_some(days * 24 + hour)
}

/// Days since 1970-01-01 of a date from then on in the Gregorian calendar.
pub(super) fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month_at = usize::try_from(month.checked_sub(1)?).ok()?;
    let length = *lengths.get(month_at)?;
    if !(1970..=9999).contains(&year) || day == 0 || day > length {
        return None;
    }
    let leap_days_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leap_days_before(year) - leap_days_before(1970);
    Some(years + lengths[..month_at].iter().sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::hash::Algorithm;

    fn blob(text: &str) -> Vec<u8> {
        format!("{text}--\n{}\nsignature", Algorithm::Sha1.digest(text.as_bytes())).into_bytes()
    }

    const KEY: &str = "10:31:21:93:A2:59:FC:B7:20:55:19:AD:4D:09:D7:84:35:03:DC:17";

    #[test]
    fn dates_become_hours() {
        assert_eq!(hour_of("19700101000000"), Some(0));
        assert_eq!(hour_of("20261121120000"), Some(1_795_262_400 / 3600));
        assert_eq!(hour_of("20240229235959"), Some((1_709_164_800 + 23 * 3600) / 3600));
        for bad in ["2026112112000", "20261321120000", "20230229000000", "20261121240000", "2026112112000x"] {
            assert_eq!(hour_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn comments_mixed_algorithms_and_lines_that_are_no_fingerprint() {
        let text = format!(
            "20261121080850\nE20261128093000\nNx.cern.ch\n{KEY} # now\n{KEY}-RMD160\tolder\n# remark\nABCDEF\n"
        );
        let whitelist = Whitelist::parse(&blob(&text)).unwrap();
        let algorithms: Vec<_> = whitelist.fingerprints.iter().map(|print| print.algorithm).collect();
        assert_eq!(algorithms, [Algorithm::Sha1, Algorithm::Rmd160]);
        assert_eq!(whitelist.fingerprints[0].to_string(), "10312193a259fcb7205519ad4d09d7843503dc17");
        assert!(!whitelist.pkcs7);
    }

    #[test]
    fn the_hour_of_expiry_is_over() {
        let whitelist =
            Whitelist::parse(&blob("20261121080850\nE20261121123000\nNx.cern.ch\nVpkcs7\nWcachain\n"))
                .unwrap();
        let noon = 1_795_262_400;
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!whitelist.is_expired(at(noon - 1)));
        assert!(whitelist.is_expired(at(noon)));
        assert!(whitelist.is_expired(UNIX_EPOCH - Duration::from_secs(1)));
        assert!(whitelist.pkcs7 && whitelist.ca_chain);
    }

    #[test]
    fn broken_lines_are_named() {
        assert_eq!(Whitelist::parse(&blob("2026\nE1\n")), Err(WhitelistError::Created));
        assert_eq!(Whitelist::parse(&blob("20261121080850\nE1\n")), Err(WhitelistError::Expiry));
        assert_eq!(Whitelist::parse(&blob("20261121080850\nE20261121080850\n\n")), Err(WhitelistError::Name));
    }
}
