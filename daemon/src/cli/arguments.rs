//! Forms of arguments that several commands take.

use std::str::FromStr;

use volume::OptionMap;

/// `KEY=VALUE` as of `docker volume create -o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OptionArgument {
    key: String,
    value: String,
}

impl FromStr for OptionArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(OptionArgument { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("an option has the form KEY=VALUE, for example tag=v1".to_owned()),
        }
    }
}

impl OptionArgument {
    /// All options; one given twice with different values is an error.
    pub(crate) fn collect(all: &[OptionArgument]) -> Result<OptionMap, super::CliError> {
        let mut map = OptionMap::new();
        for OptionArgument { key, value } in all {
            let old = map.insert(key.clone(), value.clone());
            if old.as_ref().is_some_and(|old| old != value) {
                return Err(super::CliError::Other(format!(
                    "option {key:?} is given twice with different values"
                )));
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_pairs_and_do_not_contradict() {
        let option = |text: &str| text.parse::<OptionArgument>();
        assert!(option("tag").is_err());
        assert!(option("=v").is_err());
        let twice = [option("tag=a").unwrap(), option("tag=b").unwrap()];
        assert!(OptionArgument::collect(&twice).is_err());
        let map = OptionArgument::collect(&[option("proxy=http://a=b").unwrap()]).unwrap();
        assert_eq!(map["proxy"], "http://a=b");
    }
}
