//! The arguments of a call.

use std::ffi::OsString;

/// The calls that kubelet and the controller manager know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Init,
    GetVolumeName,
    Attach,
    WaitForAttach,
    IsAttached,
    MountDevice,
    UnmountDevice,
    Detach,
    Mount,
    Unmount,
    ExpandVolume,
    ExpandFs,
}

impl Verb {
    /// All of them, with their words.
    pub(crate) const ALL: [(&'static str, Verb); 12] = [
        ("init", Verb::Init),
        ("getvolumename", Verb::GetVolumeName),
        ("attach", Verb::Attach),
        ("waitforattach", Verb::WaitForAttach),
        ("isattached", Verb::IsAttached),
        ("mountdevice", Verb::MountDevice),
        ("unmountdevice", Verb::UnmountDevice),
        ("detach", Verb::Detach),
        ("mount", Verb::Mount),
        ("unmount", Verb::Unmount),
        ("expandvolume", Verb::ExpandVolume),
        ("expandfs", Verb::ExpandFs),
    ];

    /// The call of this word.
    pub(crate) fn of(word: &str) -> Option<Verb> {
        Verb::ALL.iter().find(|(known, _)| *known == word).map(|(_, verb)| *verb)
    }
}

/// The arguments of a call are not those that it takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// Too few or too many.
    #[error("{call} was called with {count} arguments; it takes {expected}")]
    Count { call: &'static str, count: usize, expected: &'static str },
    /// A path that is not text.
    #[error("the directory of {0} is not UTF-8")]
    NotText(&'static str),
    /// A path that is not absolute.
    #[error("{call} wants an absolute path, not {path:?}")]
    Relative { call: &'static str, path: String },
    /// The options are no JSON object of texts. Their content is not shown: it may hold secrets.
    #[error("the options of mount are no JSON object of texts ({0})")]
    Options(String),
}

/// What `mount` was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Absolute path.
    pub(crate) target: String,
    /// The JSON.
    pub(crate) options: crate::KubeletOptions,
}

/// Since Kubernetes 1.6: `DIR JSON`; before: `DIR DEVICE JSON`. A device means nothing to a driver that is not attached.
pub(crate) fn mount(arguments: &[OsString]) -> Result<Mount, CallError> {
    let (target, options) = match arguments {
        [target, options] | [target, _, options] => (target, options),
        _ => {
            let expected = "DIR JSON, or DIR DEVICE JSON";
            return Err(CallError::Count { call: "mount", count: arguments.len(), expected });
        }
    };
    let target = path("mount", target)?;
    let wrong = |what: &str| CallError::Options(what.to_owned());
    let text = options.to_str().ok_or_else(|| wrong("not UTF-8"))?;
    let options = serde_json::from_str(text).map_err(|error| {
        // serde_json's own words may quote a value.
        wrong(&format!("line {} column {}", error.line(), error.column()))
    })?;
    Ok(Mount { target, options })
}

/// `DIR`, no options.
pub(crate) fn unmount(arguments: &[OsString]) -> Result<String, CallError> {
    match arguments {
        [target] => path("unmount", target),
        _ => Err(CallError::Count { call: "unmount", count: arguments.len(), expected: "DIR" }),
    }
}

fn path(call: &'static str, argument: &OsString) -> Result<String, CallError> {
    let path = argument.to_str().ok_or(CallError::NotText(call))?;
    if !path.starts_with('/') {
        return Err(CallError::Relative { call, path: path.chars().take(100).collect() });
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn mount_has_two_orders() {
        let json = r#"{"repository":"lhcb.cern.ch","kubernetes.io/fsType":""}"#;
        let new = mount(&arguments(&["/pods/a", json])).unwrap();
        let old = mount(&arguments(&["/pods/a", "/dev/xxx", json])).unwrap();
        let empty = mount(&arguments(&["/pods/a", "", json])).unwrap();
        assert_eq!(new, old);
        assert_eq!(new, empty);
        assert_eq!(new.target, "/pods/a");
        assert_eq!(new.options.texts()["repository"], "lhcb.cern.ch");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_options() {
        for bad in [&["/a"][..], &[], &["/a", "b", "{}", "c"]] {
            assert!(matches!(mount(&arguments(bad)), Err(CallError::Count { .. })), "{bad:?}");
        }
        assert!(matches!(mount(&arguments(&["a", "{}"])), Err(CallError::Relative { .. })));
        for json in
            ["", "[]", "{\"a\":1}", "{\"kubernetes.io/secret/key\":[\"hunter2\"]}", "\"hunter2\"", "{"]
        {
            let error = mount(&arguments(&["/a", json])).unwrap_err();
            assert!(matches!(error, CallError::Options(_)), "{json}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(unmount(&arguments(&["/a", "{}"])).is_err());
        assert_eq!(unmount(&arguments(&["/a"])).unwrap(), "/a");
    }

    #[test]
    fn every_call_has_its_word() {
        for (word, verb) in Verb::ALL {
            assert_eq!(Verb::of(word), Some(verb));
        }
        assert_eq!(Verb::of("Mount"), None);
    }
}
