//! Servers and proxies as a site writes them in `CVMFS_SERVER_URL` and `CVMFS_HTTP_PROXY`.
//!
//! The lists are the site's *policy*: a request goes to one of these servers through one of these proxies, or not
//! at all. An empty proxy list is therefore an error and not "direct".
//! Source of the syntax: CernVM-FS documentation, client configuration; facts of the issue, section 3.2.

use std::fmt;
use std::str::FromStr;

/// The most servers or proxies that a list may have.
const MAX_ENTRIES: usize = 64;

/// Port of a proxy without one, as in libcurl.
const DEFAULT_PROXY_PORT: u16 = 1080;

/// Why a text is no server or proxy list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A list without entries.
    #[error("the list is empty; for proxies write `DIRECT` if no proxy is wanted")]
    Empty,
    /// More entries than [`MAX_ENTRIES`].
    #[error("the list has {0} entries; {MAX_ENTRIES} is the limit")]
    TooMany(usize),
    /// TLS is not there.
    #[error(
        "{0}: https is not supported yet; use the http:// address (all content is verified by signature and hash)"
    )]
    Https(String),
    /// Proxy auto-configuration is not there.
    #[error("proxy auto-configuration (`auto`) is not supported yet; name the proxies")]
    AutoConfiguration,
    /// User and password in an address.
    #[error("an address with a user name or password is not supported")]
    Credentials,
    /// Any other text.
    #[error("{0:?} is no address; the form is http://host[:port][/path]")]
    Form(String),
}

/// A TCP peer by name: host name, IPv4 or IPv6 address (without brackets) and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Authority {
    /// `host:port`, an IPv6 address in brackets: the form of a `Host` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Authority {
    /// As in a URL or `Host` header: without the port when that is 80.
    pub(crate) fn in_url(&self) -> String {
        let text = self.to_string();
        text.strip_suffix(":80").map_or(text.clone(), str::to_owned)
    }

    /// Parses `host`, `host:port`, `[v6]`, `[v6]:port`.
    fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let bad = || AddressError::Form(text.chars().take(200).collect());
        if text.contains('@') {
            return Err(AddressError::Credentials);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or_else(bad)?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(allowed) {
            return Err(bad());
        }
        let port = match port {
            Some(digits) => digits.parse().ok().filter(|&port| port != 0).ok_or_else(bad)?,
            None => default_port,
        };
        Ok(Authority { host: host.to_ascii_lowercase(), port })
    }
}

/// The URL of a repository on one server: `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    authority: Authority,
    path: String,
}

impl ServerUrl {
    /// Host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What stands before the name of an object: empty, or begins with a slash and does not end with one.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl FromStr for ServerUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let shown = || text.chars().take(200).collect::<String>();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(AddressError::Https(shown()));
            }
            _ => return Err(AddressError::Form(shown())),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
        if !printable || path.len() > 1024 {
            return Err(AddressError::Form(shown()));
        }
        Ok(ServerUrl {
            authority: Authority::parse(authority, 80)?,
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

/// The servers of a repository in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers(Vec<ServerUrl>);

impl Servers {
    /// The servers, at least one.
    pub fn as_slice(&self) -> &[ServerUrl] {
        &self.0
    }

    /// The first `count` servers (`CVMFS_MAX_SERVERS`), at least one.
    #[must_use]
    pub fn limited(mut self, count: usize) -> Self {
        self.0.truncate(count.max(1));
        self
    }
}

impl FromStr for Servers {
    type Err = AddressError;

    /// URLs separated by `;` or `|`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let entries: Vec<&str> = entries(text, &[';', '|']).collect();
        if entries.is_empty() {
            return Err(AddressError::Empty);
        }
        if entries.len() > MAX_ENTRIES {
            return Err(AddressError::TooMany(entries.len()));
        }
        Ok(Servers(entries.into_iter().map(str::parse).collect::<Result<_, _>>()?))
    }
}

/// One way to reach a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// Without a proxy, because the site says so.
    Direct,
    /// Through an HTTP proxy.
    Http(Authority),
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proxy::Direct => f.write_str("DIRECT"),
            Proxy::Http(authority) => write!(f, "http://{authority}"),
        }
    }
}

impl FromStr for Proxy {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("direct") {
            return Ok(Proxy::Direct);
        }
        if text.eq_ignore_ascii_case("auto") {
            return Err(AddressError::AutoConfiguration);
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(AddressError::Https(text.chars().take(200).collect()));
            }
            Some(_) => return Err(AddressError::Form(text.chars().take(200).collect())),
            None => text,
        };
        Ok(Proxy::Http(Authority::parse(rest.trim_end_matches('/'), DEFAULT_PROXY_PORT)?))
    }
}

/// Groups of proxies: load is balanced within a group, the next group is used when all of a group failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyGroups(Vec<Vec<Proxy>>);

impl ProxyGroups {
    /// No proxy at all.
    pub fn direct() -> Self {
        ProxyGroups(vec![vec![Proxy::Direct]])
    }

    /// The groups in order; none is empty.
    pub fn groups(&self) -> &[Vec<Proxy>] {
        &self.0
    }

    /// These proxies, then the fallback proxies (`CVMFS_FALLBACK_PROXY`). As in the C++ client, `DIRECT` is no
    /// fallback proxy, and once there are fallback proxies it is taken out of the ordinary ones too.
    #[must_use]
    pub fn with_fallback(self, fallback: ProxyGroups) -> Self {
        let proxies_only = |groups: Vec<Vec<Proxy>>| -> Vec<Vec<Proxy>> {
            let strip =
                |group: Vec<Proxy>| group.into_iter().filter(|p| *p != Proxy::Direct).collect::<Vec<_>>();
            groups.into_iter().map(strip).filter(|group| !group.is_empty()).collect()
        };
        let fallback = proxies_only(fallback.0);
        if fallback.is_empty() {
            return self;
        }
        let mut groups = proxies_only(self.0);
        groups.extend(fallback);
        ProxyGroups(groups)
    }
}

impl FromStr for ProxyGroups {
    type Err = AddressError;

    /// `a|b;c;DIRECT`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut count = 0;
        let mut groups = Vec::new();
        for group in entries(text, &[';']) {
            let proxies = entries(group, &['|']).map(str::parse).collect::<Result<Vec<Proxy>, _>>()?;
            count += proxies.len();
            if count > MAX_ENTRIES {
                return Err(AddressError::TooMany(count));
            }
            if !proxies.is_empty() {
                groups.push(proxies);
            }
        }
        if groups.is_empty() {
            return Err(AddressError::Empty);
        }
        Ok(ProxyGroups(groups))
    }
}

/// The parts of a list that are not blank.
fn entries<'a>(text: &'a str, separators: &'a [char]) -> impl Iterator<Item = &'a str> {
    text.split(separators).map(str::trim).filter(|part| !part.is_empty())
}

/// Percent-encodes a path for a URL, byte by byte: all but `0-9A-Za-z/:.@+-_~[],` becomes `%XX` (section 4.1 of the facts).
pub(crate) fn escape_path(path: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(path.len() + 16);
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/:.@+-_~[],".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_lists_keep_their_order() {
        let servers: Servers =
            " http://a.example/cvmfs/r/;http://B:8000/cvmfs/r|http://[::1]:81".parse().unwrap();
        let shown: Vec<String> = servers.as_slice().iter().map(ServerUrl::to_string).collect();
        assert_eq!(shown, ["http://a.example:80/cvmfs/r", "http://b:8000/cvmfs/r", "http://[::1]:81"]);
        assert_eq!(servers.limited(0).as_slice().len(), 1);
    }

    #[test]
    fn addresses_that_cannot_be_used_are_named() {
        assert_eq!("".parse::<Servers>(), Err(AddressError::Empty));
        assert_eq!(" ; ".parse::<ProxyGroups>(), Err(AddressError::Empty));
        assert!(matches!("https://a/b".parse::<Servers>(), Err(AddressError::Https(_))));
        assert!(matches!("http://a:99999/b".parse::<Servers>(), Err(AddressError::Form(_))));
        assert!(matches!("http://u:p@a/b".parse::<Servers>(), Err(AddressError::Credentials)));
        assert!(matches!("http://a/b c".parse::<Servers>(), Err(AddressError::Form(_))));
        assert!(matches!("http://a/b\r\nX: y".parse::<Servers>(), Err(AddressError::Form(_))));
        assert_eq!("auto".parse::<ProxyGroups>(), Err(AddressError::AutoConfiguration));
        assert!(matches!("x;".repeat(100).parse::<ProxyGroups>(), Err(AddressError::TooMany(_))));
    }

    #[test]
    fn proxy_groups_follow_the_policy_text() {
        let groups: ProxyGroups = "http://a:3128|b:3128;c;DIRECT".parse().unwrap();
        let shown: Vec<Vec<String>> =
            groups.groups().iter().map(|group| group.iter().map(Proxy::to_string).collect()).collect();
        assert_eq!(shown, [vec!["http://a:3128", "http://b:3128"], vec!["http://c:1080"], vec!["DIRECT"]]);
        let with = groups.with_fallback("DIRECT;f:1".parse().unwrap());
        let shown: Vec<String> = with.groups().iter().flatten().map(Proxy::to_string).collect();
        assert_eq!(shown, ["http://a:3128", "http://b:3128", "http://c:1080", "http://f:1"]);
    }

    #[test]
    fn escaping_is_bytewise() {
        assert_eq!(escape_path(b"/a b/\xfc~[x],%?"), "/a%20b/%FC~[x],%25%3F");
    }
}
