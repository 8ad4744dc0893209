use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::*;

/// Files of a test: by path, nothing else exists.
struct Given(BTreeMap<&'static str, &'static str>);

impl Files for Given {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = path.to_str().and_then(|path| self.0.get(path));
        text.map(|text| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn look(&self, path: &Path) -> Option<std::fs::Metadata> {
        self.read(path).ok().and_then(|_| std::fs::metadata("/proc/self/exe").ok())
    }
}

fn run(text: &str) -> Result<BTreeMap<String, String>, ShellError> {
    let files = Given(BTreeMap::from([
        ("/etc/cvmfs/common.conf", "COMMON=yes\nCVMFS_HTTP_PROXY=http://common:1"),
        ("/etc/cvmfs/loop", ". loop"),
        ("/etc/cvmfs/proxy", "DIRECT\n"),
        ("/etc/debian_version", "12.8\n"),
    ]));
    let mut shell = Shell::new(&files, BTreeMap::from([("KNOWN".to_owned(), "known value".to_owned())]));
    shell.run("/etc/cvmfs/default.local", text)?;
    Ok(shell.into_assigned().into_iter().map(|(name, assigned)| (name, assigned.value)).collect())
}

fn value(text: &str) -> String {
    run(text).unwrap_or_else(|error| panic!("{text}: {error}")).remove("X").unwrap_or_default()
}

#[test]
fn values_and_quotes() {
    for (text, expected) in [
        ("X=plain", "plain"),
        ("  X=a:b;Y=c", "a:b"),
        ("X='a b' # comment", "a b"),
        ("X=\"http://a|http://b;DIRECT\"", "http://a|http://b;DIRECT"),
        ("X=a\"b c\"'d e'f", "ab cd ef"),
        ("X=a#b", "a#b"),
        ("X=\"a\\\"b\\$c\\d\"", "a\"b$c\\d"),
        ("X=a\\ b", "a b"),
        ("X=one\\\ntwo", "onetwo"),
        ("X=\"one\\\ntwo\"", "onetwo"),
        ("X=\"one\ntwo\"", "one\ntwo"),
        ("X=1; X=2", "2"),
        ("X=a; X+=b", "ab"),
        ("X=\r\n", ""),
        ("X=a\x0cb", "a\x0cb"),
        ("X=$", "$"),
        ("export X=a", "a"),
        ("readonly X=\"a b\"", "a b"),
        ("export Y=1 X=2", "2"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn variables() {
    for (text, expected) in [
        ("Y=1; X=$Y:z", "1:z"),
        ("X=${KNOWN}s", "known values"),
        ("X=\"$KNOWN\"", "known value"),
        ("X=$UNSET", ""),
        ("X=${UNSET:-default value}", "default value"),
        ("Y=; X=${Y:-empty}", "empty"),
        ("Y=; X=${Y-unset}", ""),
        ("X=${KNOWN:+there}", "there"),
        ("X=${UNSET:+there}", ""),
        ("X=a; X=\"${X:=b}\"", "a"),
        ("Y=${X:=made}", "made"),
        ("X=${UNSET:-${KNOWN}}", "known value"),
        ("X=${UNSET:-\"q $KNOWN\"}", "q known value"),
        ("X=$((RANDOM % 2))", "0"),
        ("Y=3; X=$((Y * 2 + $Y))", "9"),
        ("X=$(echo a b)", "a b"),
        ("X=$(cat proxy)", "DIRECT"),
        ("X='$KNOWN'", "$KNOWN"),
        ("X=http://h/@fqrn@", "http://h/@fqrn@"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
    assert_eq!(value("X=$(uname -m)"), nix::sys::utsname::uname().unwrap().machine().to_str().unwrap());
}

#[test]
fn decisions() {
    for (condition, expected) in [
        ("[ \"$KNOWN\" = \"known value\" ]", true),
        ("[ x$UNSET = x ]", true),
        ("[ -z $UNSET ]", true),
        ("[ -z \"$UNSET\" ] || [ a = b ]", true),
        ("[ -n \"$UNSET\" ]", false),
        ("[ ! -n \"$UNSET\" ]", true),
        ("! [ a = a ]", false),
        ("[ a = b -o b = b ]", true),
        ("[ a = a -a b = c ]", false),
        ("[ 3 -lt 10 ] && [ 10 -ge 10 ]", true),
        ("[ -f /etc/debian_version ]", true),
        ("[ -f /etc/nothing ]", false),
        ("test -e common.conf", true),
        ("[ ! -f common.conf ]", false),
        ("[ -f /etc/debian_version ] && grep -q \"wheezy\\|jessie\" /etc/debian_version", false),
        ("grep -q \"^12\\.\\|jessie\" /etc/debian_version >/dev/null 2>&1", true),
        ("grep -qE \"x|8$\" /etc/debian_version", true),
        ("grep -q \"1.*8\" /etc/debian_version", true),
        ("grep -q x /etc/nothing", false),
        ("true && false || true", true),
        ("[ ]", false),
        ("[ = = = ]", true),
    ] {
        let text = format!("if {condition}; then X=yes; else X=no; fi");
        assert_eq!(value(&text), if expected { "yes" } else { "no" }, "{condition}");
    }
    let text =
        "Y=2\nif [ $Y = 1 ]\nthen\n  X=1\nelif [ $Y = 2 ]; then\n  if true; then X=2; fi\nelse X=3\nfi";
    assert_eq!(value(text), "2");
    assert_eq!(value("[ -z \"$UNSET\" ] && X=set"), "set");
    assert_eq!(value("if false; then X=1; fi\n"), "");
}

#[test]
fn other_files_are_read_from_where_this_one_is() {
    let assigned = run(". ../cvmfs/common.conf\nX=$COMMON").err().map(|error| error.line);
    // The path is not made canonical: a test's files are known by one name only.
    assert_eq!(assigned, Some(1));
    let assigned = run(". /etc/cvmfs/common.conf\nsource common.conf\nX=$COMMON").unwrap();
    assert_eq!((assigned["X"].as_str(), assigned["CVMFS_HTTP_PROXY"].as_str()), ("yes", "http://common:1"));
}

#[test]
fn origins_are_those_of_the_last_assignment() {
    let files = Given(BTreeMap::from([("/e/common", "\n\nA=1")]));
    let mut shell = Shell::new(&files, BTreeMap::new());
    shell.run("/e/default.conf", ". /e/common\nB=1\nB=2\nunset C").unwrap();
    let assigned = shell.into_assigned();
    assert_eq!((assigned["A"].file.as_str(), assigned["A"].line), ("/e/common", 3));
    assert_eq!((assigned["B"].file.as_str(), assigned["B"].line), ("/e/default.conf", 3));
}

#[test]
fn what_cannot_be_evaluated_is_an_error_with_its_line() {
    for (text, line, what) in [
        ("A=1\nX=$(curl http://x)", 2, "is not supported in configuration files"),
        ("A=1\n\nX=`hostname`", 3, "write $(…)"),
        ("case x in x) X=1;; esac", 1, "`case` is not supported"),
        ("for i in 1 2; do X=$i; done", 1, "`for` is not supported"),
        ("f() { X=1; }", 1, "not supported"),
        ("X=1 &", 1, "background"),
        ("echo a | cat", 1, "pipes"),
        ("X=\"abc", 1, "a double quote is not closed"),
        ("A='\n\n", 1, "a single quote is not closed"),
        ("if true; then\nX=1\n", 1, "`if` without `fi`"),
        ("A=1\nfi", 2, "`fi` without its beginning"),
        ("[ a = a", 1, "`[` without `]`"),
        ("[ 1 -lt x ]", 1, "compared as a number"),
        ("[[ a == b ]]", 1, "`[ … ]`"),
        ("X=http://a:1;DIRECT", 1, "with quotes around a value"),
        ("rm -rf /", 1, "command `rm` is not supported"),
        ("readonly A=1\nA=2", 2, "readonly"),
        ("X=${A%b}", 1, "not supported"),
        ("X=${A:?must be set}", 1, "must be set"),
        ("X=$1", 1, "`$1` is not supported"),
        ("A=1 true", 1, "before a command"),
        (". /nothing", 1, "cannot be read"),
        ("X=1 > /tmp/x", 1, "/dev/null only"),
    ] {
        let error = run(text).expect_err(text);
        assert_eq!((error.line, error.file.as_str()), (line, "/etc/cvmfs/default.local"), "{text}: {error}");
        assert!(error.what.contains(what), "{text}: {error}");
    }
    // Not reached, so not needed.
    assert_eq!(value("if false; then curl http://x; fi; X=1"), "1");
}

#[test]
fn depth_length_and_time_are_bounded() {
    let error = run(". /etc/cvmfs/loop").unwrap_err();
    assert!(error.what.contains("too deeply"), "{error}");
    assert!(run(&"if true; then ".repeat(1000)).is_err());
    assert!(run(&format!("X={}", "${A:-".repeat(1000))).is_err());
    assert!(run(&format!("X={}", "$(echo ".repeat(1000))).is_err());
    assert!(run(&format!("X=$(({}", "(".repeat(100_000))).is_err());
    let doubling = format!("X=aaaaaaaa\n{}", "X=$X$X\n".repeat(64));
    assert!(run(&doubling).unwrap_err().what.contains("too long"));
    assert!(run(&"true\n".repeat(200_000)).unwrap_err().what.contains("too many commands"));
}
