//! What the documents say is so: marked examples are run, links lead somewhere, keys, options, commands and files are those
//! that there are.
//!
//! Examples are written as a user types them, with the usual paths. They are run with the paths of a scene in their
//! place, and with a shell function `volplane` that adds the scene's directories.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use system_tests::daemon::{Daemon, Scene, binary};
use system_tests::document::{self, Block};
use system_tests::{process, wait};

/// Documents with examples, in the order in which they are run: later ones use what earlier ones have made.
const WITH_EXAMPLES: &[&str] =
    &["doc/cvmfs.md", "doc/operations.md", "doc/configuration.md", "doc/kubernetes.md", "README.md"];

/// All documents for people.
fn documents() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "*.md"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().filter(|path| root().join(path).exists()).map(str::to_owned).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Stands before each example.
const PRELUDE: &str = r#"
set -eu -o pipefail
sudo() { "$@"; }
volplane() {
    case "$1 ${2-}" in
    "cvmfs serve") echo $BASHPID >>"$SCENE/log/background"; exec "$VOLPLANE" "$@" >"$SCENE/log/web" 2>&1 </dev/null ;;
    "cvmfs showconfig") "$VOLPLANE" "$@" --cvmfs-config-dir "$SCENE/etc" ;;
    status* | mount* | umount* | refresh* | volume*) "$VOLPLANE" "$@" --run-dir "$SCENE/run" ;;
    *) "$VOLPLANE" "$@" ;;
    esac
}
"#;

/// A scene in which examples are run.
struct Stage {
    scene: Scene,
    port: u16,
}

impl Stage {
    fn new() -> Stage {
        let scene = Scene::new();
        for part in ["mnt", "home"] {
            fs::create_dir_all(scene.path(part)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Stage { scene, port }
    }

    /// The scene's directory.
    fn directory(&self) -> PathBuf {
        self.scene.path("home").parent().unwrap().to_owned()
    }

    /// The usual paths as they are in the scene.
    fn place(&self, text: &str) -> String {
        let mut text = text.replace("127.0.0.1:8000", &format!("127.0.0.1:{}", self.port));
        for (usual, part) in
            [("/etc/cvmfs", "etc"), ("/srv/cvmfs", "www"), ("/mnt/", "mnt/"), ("/run/volplane", "run")]
        {
            text = text.replace(usual, self.directory().join(part).to_str().unwrap());
        }
        text
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("{PRELUDE}{}", self.place(command)));
        shell.current_dir(self.scene.path("home"));
        shell.env("SCENE", self.directory()).env("VOLPLANE", binary());
        shell
    }

    fn run(&self, document: &str, block: &Block) {
        for example in block.examples() {
            let place = format!("{document}:{}: {}", block.line, example.command.trim_end());
            let output = process::output_within(&mut self.shell(&example.command), wait::LONG);
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{place}\n{}\n{printed}{errors}", output.status);
            if let Some(expected) = &example.output {
                let expected: Vec<String> = expected.iter().map(|line| self.place(line)).collect();
                let lines: Vec<&str> = printed.lines().collect();
                assert!(document::fits(&expected, &lines), "{place}\nprints\n{printed}{errors}");
            }
            if example.command.trim_end().ends_with('&') {
                wait::until_true("what was started in the background answers", || {
                    TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                });
            }
        }
    }

    /// Sends a request over the control socket as proto/control.md describes it.
    fn ask(&self, request: &str) -> serde_json::Value {
        let mut socket = UnixStream::connect(self.scene.path("run/control.sock")).unwrap();
        socket.set_read_timeout(Some(wait::LONG)).unwrap();
        let length = u32::try_from(request.len()).unwrap();
        socket.write_all(&length.to_be_bytes()).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut length = [0; 4];
        socket.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        socket.read_exact(&mut answer).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for pid in self.scene.log("background").lines() {
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
    }
}

#[test]
fn examples_do_what_they_show() {
    let stage = Stage::new();
    let daemon = Daemon::start(&stage.scene);
    let mut ran = 0;
    for path in WITH_EXAMPLES {
        for block in document::blocks(&document::read(&root(), path)) {
            if block.marker.as_deref() == Some("test") {
                stage.run(path, &block);
                ran += block.examples().len();
            }
        }
    }
    assert!(ran >= 20, "only {ran} examples are marked");

    let path = "proto/control.md";
    let blocks = document::blocks(&document::read(&root(), path));
    let requests = blocks.iter().find(|block| block.marker.as_deref() == Some("control")).unwrap();
    for request in requests.text.lines() {
        let request = request.replace("$SCENE", stage.directory().to_str().unwrap());
        let answer = stage.ask(&request);
        assert!(answer.get("ok").is_some(), "{path}: {request}: {answer}");
    }
    for (request, kind) in [
        ("{\"op\":\"reboot\"}", "invalid_argument"),
        ("[]", "invalid_argument"),
        ("{\"op\":\"volume-inspect\",\"name\":\"nobody\"}", "not_found"),
    ] {
        assert_eq!(stage.ask(request)["error"]["kind"], kind, "{request}");
    }

    // The options of a volume are those in the table.
    let text = document::read(&root(), "doc/cvmfs.md");
    let refused =
        daemon.command(&["volume", "create", "x.example.org", "-o", "xyzzyxyzzy=1"]).output().unwrap();
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    let (_, known) = refused.split_once("known are ").unwrap();
    let (known, _) = known.split_once(" and CVMFS_").unwrap();
    for option in known.split(", ") {
        assert!(text.contains(&format!("`{option}`")), "doc/cvmfs.md does not tell of option {option}");
    }
}

#[test]
fn every_marked_block_is_run() {
    for path in documents() {
        let text = document::read(&root(), &path);
        let marked = document::blocks(&text).into_iter().any(|block| block.marker.as_deref() == Some("test"));
        assert!(!marked || WITH_EXAMPLES.contains(&path.as_str()), "{path} is missing in WITH_EXAMPLES");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for path in documents() {
        let text = document::read(&root(), &path);
        let directory = root().join(&path).parent().unwrap().to_owned();
        for link in document::links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { root().join(&path) } else { directory.join(file) };
            let found = target.exists()
                && (anchor.is_empty()
                    || document::anchors(&fs::read_to_string(&target).unwrap_or_default())
                        .iter()
                        .any(|known| known == anchor));
            if !found {
                broken.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The keys that the binary knows in a table of its configuration, from its own error.
fn known_keys(directory: &Path, table: &str) -> Vec<String> {
    let file = directory.join("unknown.toml");
    let head = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    fs::write(&file, format!("{head}xyzzyxyzzyxyzzyxyzzyxyzzyxyzzyxyzzy = 1\n")).unwrap();
    let output = Command::new(binary()).args(["serve", "--check", "--config"]).arg(&file).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    let (_, known) = text.split_once("known here: ").unwrap();
    known.trim().split(", ").map(str::to_owned).collect()
}

#[test]
fn the_settings_are_those_that_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let mut known = BTreeSet::new();
    let text = document::read(&root(), "doc/configuration.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1).collect())
        .collect();
    let documented: BTreeSet<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    let tables: BTreeSet<&str> = documented
        .iter()
        .flat_map(|key| key.match_indices('.').map(|(dot, _)| &key[..dot]))
        .chain([""])
        .collect();
    for table in &tables {
        for key in known_keys(directory.path(), table) {
            let key = if table.is_empty() { key } else { format!("{table}.{key}") };
            if !tables.contains(key.as_str()) {
                known.insert(key);
            }
        }
    }
    assert_eq!(documented, known, "doc/configuration.md and the binary");

    let help = process::run(Command::new(binary()).args(["serve", "--help"]));
    let flags = help.split_whitespace().filter(|word| word.starts_with("--")).collect::<BTreeSet<_>>();
    for row in rows.iter().filter(|row| !row[1].is_empty()) {
        assert!(flags.contains(row[1]), "{}: flag {}", row[0], row[1]);
    }
    for flag in flags.iter().filter(|flag| **flag != "--help") {
        assert!(text.contains(*flag), "doc/configuration.md does not tell of {flag}");
    }
}

/// Names of the subcommands of a command, at any depth.
fn commands(path: &[&str], found: &mut Vec<String>) {
    let help =
        process::output_within(Command::new(binary()).args(path).arg("--help"), Duration::from_secs(20));
    let help = String::from_utf8(help.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        let Some(name) = line.strip_prefix("  ").and_then(|line| line.split_whitespace().next()) else {
            continue;
        };
        if name == "help" || line.starts_with("   ") {
            continue;
        }
        let below = [path, &[name]].concat();
        found.push(below.join(" "));
        commands(&below, found);
    }
}

#[test]
fn every_command_is_told_of() {
    let all: String = documents().iter().map(|path| document::read(&root(), path)).collect();
    let mut found = Vec::new();
    commands(&[], &mut found);
    assert!(found.len() >= 12, "{found:?}");
    let missing: Vec<_> =
        found.iter().filter(|command| !all.contains(&format!("volplane {command}"))).collect();
    assert!(missing.is_empty(), "no document tells of {missing:?}");
}

#[test]
fn files_that_are_named_exist() {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut missing = Vec::new();
    for path in documents() {
        let text = document::read(&root(), &path);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_./-".contains(c)));
        for word in words.filter(|word| word.ends_with(".rs") && word.len() > 3 && !word.starts_with("docs."))
        {
            let exists = listed.lines().any(|file| file == word || file.ends_with(&format!("/{word}")));
            if !exists {
                missing.push(format!("{path}: {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
