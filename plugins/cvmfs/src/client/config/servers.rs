//! `CVMFS_SERVER_URL`: where a repository is served.

use std::fmt;
use std::str::FromStr;

/// Most servers or proxies that one parameter may name.
pub const MAX_ENTRIES: usize = 64;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP. Content is verified anyway.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// As in an URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// The base URL of a repository on a server, `http://host[:port]/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerUrl {
    /// How to speak.
    pub scheme: Scheme,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port, the scheme's own if none was given.
    pub port: u16,
    /// Path with a leading and without a trailing slash; empty for the root.
    pub path: String,
}

/// Why a text is no server URL or list of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not of the form of an URL.
    #[error("{0:?} is no URL of the form http://host[:port]/path")]
    Form(String),
    /// A scheme that is not spoken.
    #[error("{0:?}: use http:// or https://")]
    Scheme(String),
    /// Too many.
    #[error("{0} entries; {MAX_ENTRIES} is the limit")]
    TooMany(usize),
    /// None at all.
    #[error("no URL is named; give one of the form http://host[:port]/path")]
    Empty,
}

/// Splits `host[:port]` or `[v6][:port]`; `None` when it has not that form.
pub(super) fn split_authority(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, after.strip_prefix(':').or_else(|| after.is_empty().then_some(""))?)
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    let port = if port.is_empty() { default_port } else { port.parse().ok().filter(|port| *port != 0)? };
    let letters = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    (!host.is_empty() && host.len() <= 255 && host.chars().all(letters)).then(|| (host.to_owned(), port))
}

impl ServerUrl {
    /// `host[:port]` as the `Host` header has it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.path)
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let error = || UrlError::Form(text.chars().take(200).collect());
        let (scheme, rest) = text.split_once("://").ok_or_else(error)?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            _ => return Err(UrlError::Scheme(text.chars().take(200).collect())),
        };
        let (authority, path) =
            rest.find('/').map_or((rest, ""), |at| (&rest[..at], rest[at..].trim_end_matches('/')));
        let printable = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{}".contains(c);
        if path.len() > 2048 || !path.chars().all(printable) {
            return Err(error());
        }
        let (host, port) = split_authority(authority, default_port).ok_or_else(error)?;
        Ok(ServerUrl { scheme, host, port, path: path.to_owned() })
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> String {
        url.to_string()
    }
}

/// Servers in order of preference, separated by `;` (or `|`). Never empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ServerList(Vec<ServerUrl>);

impl ServerList {
    /// In order of preference.
    pub fn urls(&self) -> &[ServerUrl] {
        &self.0
    }

    /// The first `count` of them, at least one (`CVMFS_MAX_SERVERS`).
    #[must_use]
    pub fn truncated(mut self, count: usize) -> Self {
        self.0.truncate(count.max(1));
        self
    }
}

impl FromStr for ServerList {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts: Vec<&str> =
            text.split([';', '|']).map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.len() > MAX_ENTRIES {
            return Err(UrlError::TooMany(parts.len()));
        }
        let mut urls: Vec<ServerUrl> = Vec::with_capacity(parts.len());
        for part in parts {
            let url = part.parse()?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        if urls.is_empty() { Err(UrlError::Empty) } else { Ok(ServerList(urls)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order() {
        let list: ServerList =
            "http://a.example/cvmfs/x.cern.ch; http://b:8000/cvmfs/x.cern.ch/;;https://[::1]:1/"
                .parse()
                .unwrap();
        let texts: Vec<String> = list.urls().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["http://a.example/cvmfs/x.cern.ch", "http://b:8000/cvmfs/x.cern.ch", "https://[::1]:1"]
        );
        assert_eq!(list.urls()[2].host, "::1");
        assert_eq!(list.truncated(1).urls().len(), 1);
    }

    #[test]
    fn texts_that_are_no_url_are_refused() {
        for bad in [
            "",
            ";|",
            "host/path",
            "ftp://h/",
            "file:///x",
            "http://",
            "http://h:0/",
            "http://h:99999/",
            "http://u@h/",
            "http://h/a b",
            "http://[x]/",
            "http://h/\u{e9}",
        ] {
            assert!(bad.parse::<ServerList>().is_err(), "{bad:?}");
        }
        assert_eq!("http://h/;".repeat(65).parse::<ServerList>(), Err(UrlError::TooMany(65)));
    }
}
