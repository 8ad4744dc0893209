//! Small values of parameters as types.

use std::str::FromStr;
use std::time::Duration;

/// A switch: `yes`, `on`, `1`, `true` or `no`, `off`, `0`, `false`, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

/// A text is no value of the type; says what would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub &'static str);

impl FromStr for Switch {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "1" | "true" => Ok(Switch(true)),
            "no" | "off" | "0" | "false" => Ok(Switch(false)),
            _ => Err(ValueError("use yes or no")),
        }
    }
}

/// A number within limits that are part of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within<const LOW: u64, const HIGH: u64>(pub u64);

/// A number is outside of its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use a whole number from {low} to {high}")]
pub struct WithinError {
    low: u64,
    high: u64,
}

impl<const LOW: u64, const HIGH: u64> FromStr for Within<LOW, HIGH> {
    type Err = WithinError;

    fn from_str(text: &str) -> Result<Self, WithinError> {
        text.parse()
            .ok()
            .filter(|number| (LOW..=HIGH).contains(number))
            .map(Within)
            .ok_or(WithinError { low: LOW, high: HIGH })
    }
}

/// A time in whole seconds, 1 second to 1 day.
pub type Seconds = Within<1, 86_400>;
/// A time in whole seconds where 0 stands for "never" or "off".
pub type SecondsOrOff = Within<0, 31_536_000>;

impl<const LOW: u64, const HIGH: u64> Within<LOW, HIGH> {
    /// The number as seconds.
    pub fn seconds(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// How much of the disk the cache may use, from `CVMFS_QUOTA_LIMIT` in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quota {
    /// No limit (a negative number in the file).
    Unlimited,
    /// Bytes.
    Bytes(u64),
}

impl FromStr for Quota {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const EXPECTED: ValueError =
            ValueError("use a number of MiB from 1 to 1073741824 (1 PiB), or -1 for no limit");
        let number: i64 = text.parse().map_err(|_| EXPECTED)?;
        match u64::try_from(number) {
            Err(_) => Ok(Quota::Unlimited),
            Ok(mib @ 1..=1_073_741_824) => Ok(Quota::Bytes(mib << 20)),
            Ok(_) => Err(EXPECTED),
        }
    }
}

/// Who gets the client's own extended attributes listed (`CVMFS_MAGIC_XATTRS_VISIBILITY`). They can be read by
/// name at any setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XattrVisibility {
    /// Nobody.
    Never,
    /// Everybody.
    Always,
    /// Everybody on the root directory, nobody elsewhere.
    RootOnly,
}

impl FromStr for XattrVisibility {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.to_ascii_lowercase().as_str() {
            "never" => Ok(XattrVisibility::Never),
            "always" => Ok(XattrVisibility::Always),
            "rootonly" => Ok(XattrVisibility::RootOnly),
            _ => Err(ValueError("use never, always or rootonly")),
        }
    }
}

/// Which IP family names are resolved to (`CVMFS_IPV4_ONLY`, `CVMFS_IPFAMILY_PREFER`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpFamily {
    /// What the resolver says, in its order.
    #[default]
    Any,
    /// IPv4 first.
    PreferV4,
    /// IPv6 first.
    PreferV6,
    /// Never IPv6.
    OnlyV4,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_read_all_spellings() {
        for (text, value) in [("YES", true), ("on", true), ("1", true), ("False", false), ("off", false)] {
            assert_eq!(text.parse(), Ok(Switch(value)));
        }
        assert_eq!("maybe".parse::<Switch>().unwrap_err().to_string(), "use yes or no");
    }

    #[test]
    fn numbers_outside_of_their_range_tell_the_range() {
        assert_eq!("5".parse::<Seconds>().unwrap().seconds(), Duration::from_secs(5));
        for bad in ["0", "-1", "86401", "5s", "", "99999999999999999999999"] {
            let error = bad.parse::<Seconds>().unwrap_err().to_string();
            assert_eq!(error, "use a whole number from 1 to 86400");
        }
    }

    #[test]
    fn quota_is_in_mebibytes_and_negative_is_unlimited() {
        assert_eq!("4000".parse(), Ok(Quota::Bytes(4000 << 20)));
        assert_eq!("-1".parse(), Ok(Quota::Unlimited));
        assert!("0".parse::<Quota>().is_err());
        assert!("9223372036854775807".parse::<Quota>().is_err());
    }
}
