//! `CVMFS_HTTP_PROXY`: `"a|b;c;DIRECT"` is groups by `;` in order of preference, within a group `|` shares the load.

use std::fmt;
use std::str::FromStr;

use super::servers::{MAX_ENTRIES, split_authority};

/// One way to a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proxy {
    /// No proxy.
    Direct,
    /// An HTTP proxy.
    Http {
        /// Host name or address; an IPv6 address without its brackets.
        host: String,
        /// Port; 1080 where none was given, as libcurl takes it.
        port: u16,
    },
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proxy::Direct => f.write_str("DIRECT"),
            Proxy::Http { host, port } if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Proxy::Http { host, port } => write!(f, "http://{host}:{port}"),
        }
    }
}

/// Groups of proxies; a later group is used when all of an earlier one fail. No group is empty; there may be no group.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProxyGroups {
    /// In order of preference.
    pub groups: Vec<Vec<Proxy>>,
    /// Whether `auto` (a PAC file from WPAD) was named; it is not looked for, the other groups are used.
    pub auto: bool,
}

/// Why a text is no list of proxies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not of the form of a proxy.
    #[error("{0:?} is no proxy: use http://host:port, DIRECT, `|` between equals and `;` before a fallback")]
    Form(String),
    /// Too many.
    #[error("{0} proxies; {MAX_ENTRIES} is the limit")]
    TooMany(usize),
    /// Nothing but `auto`.
    #[error("`auto` (a PAC file) is not supported alone; name a proxy, or `auto;DIRECT`")]
    OnlyAuto,
}

impl ProxyGroups {
    /// Straight to the server.
    pub fn direct() -> Self {
        ProxyGroups { groups: vec![vec![Proxy::Direct]], auto: false }
    }
}

impl fmt::Display for ProxyGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, group) in self.groups.iter().enumerate() {
            for (nth, proxy) in group.iter().enumerate() {
                let before = if nth > 0 { "|" } else { [";", ""][usize::from(at == 0)] };
                write!(f, "{before}{proxy}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let error = || ProxyError::Form(text.chars().take(200).collect());
        if text.eq_ignore_ascii_case("DIRECT") {
            return Ok(Proxy::Direct);
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(error()),
            None => text,
        };
        let (host, port) = split_authority(rest.trim_end_matches('/'), 1080).ok_or_else(error)?;
        Ok(Proxy::Http { host, port })
    }
}

impl FromStr for ProxyGroups {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let mut result = ProxyGroups::default();
        let mut count = 0;
        for group in text.split(';') {
            let mut proxies = Vec::new();
            for part in group.split('|').map(str::trim).filter(|part| !part.is_empty()) {
                count += 1;
                if part.eq_ignore_ascii_case("auto") {
                    result.auto = true;
                } else if count <= MAX_ENTRIES {
                    proxies.push(part.parse()?);
                }
            }
            if !proxies.is_empty() {
                result.groups.push(proxies);
            }
        }
        if count > MAX_ENTRIES {
            Err(ProxyError::TooMany(count))
        } else if result.auto && result.groups.is_empty() {
            Err(ProxyError::OnlyAuto)
        } else {
            Ok(result)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_equals_are_told_apart() {
        let groups: ProxyGroups = " http://a:3128|b:3128/ ; http://[::1]:8 ;DIRECT".parse().unwrap();
        assert_eq!(groups.groups.len(), 3);
        assert_eq!(groups.groups[0].len(), 2);
        assert_eq!(groups.to_string(), "http://a:3128|http://b:3128;http://[::1]:8;DIRECT");
    }

    #[test]
    fn auto_is_passed_over_when_something_else_is_named() {
        let groups: ProxyGroups = "auto;DIRECT".parse().unwrap();
        assert!(groups.auto);
        assert_eq!(groups.groups, ProxyGroups::direct().groups);
        assert_eq!("auto".parse::<ProxyGroups>(), Err(ProxyError::OnlyAuto));
    }

    #[test]
    fn texts_that_are_no_proxy_are_refused() {
        for bad in ["socks5://h:1", "http://h:x", "http://", "a b:1", "http://u:p@h:1"] {
            assert!(bad.parse::<ProxyGroups>().is_err(), "{bad:?}");
        }
        assert!("h:1|".repeat(65).parse::<ProxyGroups>().is_err());
    }
}
