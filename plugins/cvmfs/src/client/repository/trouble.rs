//! What keeps a repository from being up to date, for those who look at a volume's health.

use std::fmt;
use std::time::SystemTime;

use crate::client::whitelist::Whitelist;

/// A failure that lasts.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// When it began; later failures of the same kind do not change it.
    pub(super) since: SystemTime,
    pub(super) what: String,
}

impl Trouble {
    pub(super) fn now(what: String) -> Self {
        Trouble { since: SystemTime::now(), what }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clock that is far off has no text.
        if let Ok(since) = der::DateTime::from_system_time(self.since) {
            write!(f, "since {since}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Says that a whitelist is not good any more, also of a pinned revision, for which nobody asks again.
pub(super) fn expired(whitelist: &Whitelist, now: SystemTime) -> Option<String> {
    whitelist.is_expired(now).then(|| {
        format!(
            "its whitelist expired at {} (UTC): what is mounted is served, a new mount will be refused; ask the \
             repository's maintainers to renew the whitelist, and check this node's clock",
            whitelist.expires
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_whitelist_is_told() {
        let blob = std::fs::read(fixtures::repository("expired.cern.ch").join(".cvmfswhitelist")).unwrap();
        let whitelist = Whitelist::parse(&blob).unwrap();
        let text = expired(&whitelist, SystemTime::now()).unwrap();
        assert!(text.contains(&whitelist.expires), "{text}");
        assert_eq!(expired(&whitelist, SystemTime::UNIX_EPOCH), None);
        let trouble = Trouble { since: SystemTime::UNIX_EPOCH, what: "no server".to_owned() };
        assert_eq!(trouble.to_string(), "since 1970-01-01T00:00:00Z: no server");
    }
}
