//! Container images made of files that are at hand, without a registry.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::process;

/// An image of one layer.
pub struct Image {
    /// The layer: a directory tree.
    pub root: PathBuf,
    /// Name with tag.
    pub name: String,
    /// What it runs, before a container's own arguments.
    pub entrypoint: Vec<String>,
    /// What it runs when a container has no arguments.
    pub command: Vec<String>,
}

impl Image {
    /// Writes the image as an archive that engines import (`docker save` format).
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, archive: &Path) {
        let parts = archive.with_extension("parts");
        fs::create_dir_all(&parts).expect("the scene is ours");
        let layer = parts.join("layer.tar");
        process::run(
            Command::new("tar")
                .args(["--owner=0", "--group=0", "-C"])
                .arg(&self.root)
                .arg("-cf")
                .arg(&layer)
                .arg("."),
        );
        let sum = process::run(Command::new("sha256sum").arg(&layer));
        let sum = format!("sha256:{}", sum.split(' ').next().unwrap_or_default());
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Cmd": self.command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [sum]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}]);
        fs::write(parts.join("config.json"), config.to_string()).expect("the scene is ours");
        fs::write(parts.join("manifest.json"), manifest.to_string()).expect("the scene is ours");
        process::run(Command::new("tar").arg("-C").arg(&parts).arg("-cf").arg(archive).args([
            "manifest.json",
            "config.json",
            "layer.tar",
        ]));
        let _ = fs::remove_dir_all(parts);
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Busybox and all its names; sleeps when nothing else is asked for, so that it serves as a pod's sandbox too.
///
/// # Panics
/// When busybox-static is not installed.
pub fn busybox(root: &Path, name: &str) -> Image {
    for part in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(part)).expect("the scene is ours");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    let names = process::run(Command::new("/bin/busybox").arg("--list"));
    for applet in names.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("the scene is ours");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("the scene is ours");
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("the scene is ours");
    let command = ["/bin/sleep", "1000000000"].map(str::to_owned).to_vec();
    Image { root: root.to_owned(), name: name.to_owned(), entrypoint: Vec::new(), command }
}

/// One static program, as the sidecars' images have it.
///
/// # Panics
/// When it cannot be copied.
pub fn program(root: &Path, program: &Path, name: &str) -> Image {
    fs::create_dir_all(root.join("tmp")).expect("the scene is ours");
    let file = program.file_name().expect("a program has a name");
    fs::hard_link(program, root.join(file))
        .or_else(|_| fs::copy(program, root.join(file)).map(|_| ()))
        .expect("the program can be read");
    let entrypoint = vec![format!("/{}", file.to_string_lossy())];
    Image { root: root.to_owned(), name: name.to_owned(), entrypoint, command: Vec::new() }
}
