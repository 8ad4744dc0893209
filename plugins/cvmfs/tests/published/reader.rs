//! The process that looks into a mount: this very test binary, told by its environment to do nothing else.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixtures::View;

const TREE: &str = "READER_TREE";
const ANSWER: &str = "READER_ANSWER";

/// What a reader sees below `tree`.
///
/// # Panics
/// When it is not done in time; it is killed then.
pub(crate) fn view(tree: &Path, patience: Duration) -> View {
    let directory = tempfile::tempdir().unwrap();
    let answer = directory.path().join("answer");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reader::look"])
        .env(TREE, tree)
        .env(ANSWER, &answer)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < patience, "the reader of {} hangs", tree.display());
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "the reader ended with {status}");
    serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap()
}

/// A child that does not outlive its handle. Not waited for: in a dead mount it may not die before the unmount.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

#[test]
fn look() {
    let Some(tree) = std::env::var_os(TREE) else { return };
    let view = fixtures::walk(&PathBuf::from(tree));
    std::fs::write(std::env::var_os(ANSWER).unwrap(), serde_json::to_vec(&view).unwrap()).unwrap();
}
