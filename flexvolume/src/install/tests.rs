use std::os::unix::fs::MetadataExt;

use super::*;

struct Scene {
    dir: tempfile::TempDir,
    executable: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let executable = dir.path().join("volplane-flexvolume");
        fs::write(&executable, "first").unwrap();
        Scene { dir, executable }
    }

    fn plugins(&self) -> PathBuf {
        self.dir.path().join("volume/exec")
    }

    fn directory(&self) -> Directory {
        Directory::new(self.plugins(), "cern").unwrap()
    }

    fn install(&self, run_dir: &str) -> Done {
        let settings = Settings { run_dir: run_dir.into(), ..Settings::default() };
        self.directory().install(Driver::Cvmfs, &self.executable, &settings).unwrap()
    }

    fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.plugins().join(below)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn placing_updating_and_leaving_alone() {
    let scene = Scene::new();
    let place = scene.plugins().join("cern~cvmfs/cvmfs");
    assert_eq!(scene.install("/run/volplane"), Done::Placed(place.clone()));
    assert_eq!(fs::read(&place).unwrap(), b"first");
    assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o755);
    let first = place.metadata().unwrap().ino();
    assert_eq!(scene.install("/run/volplane"), Done::Unchanged(place.clone()));
    assert_eq!(place.metadata().unwrap().ino(), first, "kubelet sees no change");

    fs::write(&scene.executable, "second").unwrap();
    assert_eq!(scene.install("/run/volplane"), Done::Updated(place.clone()));
    assert_eq!(fs::read(&place).unwrap(), b"second");
    let second = place.metadata().unwrap().ino();
    assert_eq!(scene.install("/run/other"), Done::Updated(place.clone()));
    assert_eq!(place.metadata().unwrap().ino(), second, "only the settings were changed");
    let settings = Settings::of(place.parent().unwrap(), None).unwrap();
    assert_eq!(settings.run_dir, Path::new("/run/other"));
    assert_eq!(scene.names(""), ["cern~cvmfs"]);
    assert_eq!(scene.names("cern~cvmfs"), [SETTINGS_FILE, "cvmfs"]);
}

#[test]
fn what_an_interrupted_run_left_is_in_nobodys_way() {
    let scene = Scene::new();
    let hidden = scene.plugins().join(format!(".cern~cvmfs.{}", std::process::id()));
    fs::create_dir_all(&hidden).unwrap();
    fs::write(hidden.join("cvmfs"), "half").unwrap();
    let place = scene.plugins().join("cern~cvmfs/cvmfs");
    assert_eq!(scene.install("/run/volplane"), Done::Placed(place.clone()));
    fs::write(place.with_file_name(format!(".cvmfs.{}", std::process::id())), "half").unwrap();
    fs::write(&scene.executable, "second").unwrap();
    assert_eq!(scene.install("/run/volplane"), Done::Updated(place));
    assert_eq!(scene.names(""), ["cern~cvmfs"]);
    assert_eq!(scene.names("cern~cvmfs"), [SETTINGS_FILE, "cvmfs"]);
}

#[test]
fn another_programs_driver_is_replaced_but_not_removed() {
    let scene = Scene::new();
    let home = scene.plugins().join("cern~cvmfs");
    let place = home.join("cvmfs");
    fs::create_dir_all(&home).unwrap();
    fs::write(&place, "#!/usr/bin/env python").unwrap();
    assert_eq!(scene.directory().uninstall(Driver::Cvmfs).unwrap(), Done::Foreign(place.clone()));
    assert!(place.exists());
    assert_eq!(scene.install("/run/volplane"), Done::Updated(place.clone()));
    assert_eq!(scene.directory().uninstall(Driver::Cvmfs).unwrap(), Done::Removed(place.clone()));
    assert!(!home.exists());
    assert_eq!(scene.directory().uninstall(Driver::Cvmfs).unwrap(), Done::Absent(place));
}

#[test]
fn what_is_not_ours_beside_it_stays() {
    let scene = Scene::new();
    scene.install("/run/volplane");
    fs::write(scene.plugins().join("cern~cvmfs/notes"), "precious").unwrap();
    scene.directory().uninstall(Driver::Cvmfs).unwrap();
    assert_eq!(scene.names("cern~cvmfs"), ["notes"]);
}

#[test]
fn vendors_and_settings_are_checked() {
    for bad in ["", ".", "..", "a/b", ".cern", "a~b", "ä"] {
        assert!(matches!(Directory::new("/x".into(), bad), Err(InstallError::Vendor(_))), "{bad:?}");
    }
    let scene = Scene::new();
    let settings = Settings { run_dir: "relative".into(), ..Settings::default() };
    let refused = scene.directory().install(Driver::Cvmfs, &scene.executable, &settings);
    assert!(matches!(refused, Err(InstallError::Settings(_))));
    assert!(!scene.plugins().exists());
}

#[test]
fn the_executable_is_beside_the_program_or_in_libexec() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = bin.join("volplane");
    let said = executable_of(&program).unwrap_err().to_string();
    assert!(said.contains("make build") && said.contains("libexec"), "{said}");
    let libexec = dir.path().join("libexec/volplane");
    fs::create_dir_all(&libexec).unwrap();
    fs::write(libexec.join("volplane-flexvolume"), "x").unwrap();
    assert!(executable_of(&program).unwrap().ends_with("libexec/volplane/volplane-flexvolume"));
    fs::write(bin.join("volplane-flexvolume"), "x").unwrap();
    assert_eq!(executable_of(&program).unwrap(), bin.join("volplane-flexvolume"));
}
