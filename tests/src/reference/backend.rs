//! Mounting: an image on a loop device, with a file system or as the device itself.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use async_trait::async_trait;
use host::mount::MountError;
use host::mountinfo::MountTable;
use volume::{
    Abilities, Author, Backend, Caller, DEVICE_NODE, Driver, Fault, FaultKind, Form, Inspection, MountKey,
    NodeAbilities, OptionMap, RbdSpec, Resolved, SizeRange, Survivor, Usage, VolumeSpec, VolumeStats,
    WorkerReport,
};

use super::device::{self, FileSystem};
use super::{Inner, Reference, failed, publish};

/// What the key of a device has after the volume's id.
const BLOCK: &str = "+block";

/// Options of a volume: what provisioning gave it, and what publishing added.
const OPTIONS: [&str; 2] = ["pool", publish::ATTACHED];

#[async_trait]
impl Backend for Reference {
    fn driver(&self) -> Driver {
        Driver::Rbd
    }

    fn parse(
        &self,
        name: Option<&str>,
        options: &OptionMap,
        form: &Form,
        caller: &Caller,
    ) -> Result<VolumeSpec, Fault> {
        let fault = |kind, subject: &str, detail: &str| Fault::new(kind, "parse options of", subject, detail);
        let Some(volume) = name else {
            return Err(fault(FaultKind::InvalidArgument, "", "a volume has an id"));
        };
        if caller.author == Author::Pod {
            return Err(fault(FaultKind::PermissionDenied, volume, "pods have no volumes of their own here"));
        }
        if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
            return Err(fault(FaultKind::InvalidArgument, unknown, "it is no option of this driver"));
        }
        let mut attributes = options.clone();
        attributes.remove(publish::ATTACHED);
        Ok(VolumeSpec::Rbd(RbdSpec { volume: volume.to_owned(), form: form.clone(), attributes }))
    }

    fn abilities(&self) -> Option<Abilities> {
        Some(Reference::abilities(self))
    }

    fn node_abilities(&self) -> NodeAbilities {
        let grow = FileSystem::growable().is_some();
        NodeAbilities { writable: true, many_writers: false, block: true, grow, group: true }
    }

    async fn stats(&self, key: &MountKey, _mountpoint: &Path) -> Option<Result<VolumeStats, Fault>> {
        let volume = key.as_str().strip_suffix(BLOCK)?.to_owned();
        let size = self.change(move |_, state| state.volume("look at", &volume).map(|volume| volume.size));
        let bytes = |total| Some(Usage { total, used: 0, available: 0 });
        Some(size.await.map(|size| VolumeStats { bytes: bytes(size), inodes: None }))
    }

    async fn grow(&self, key: &MountKey, mountpoint: &Path, size: SizeRange) -> Result<u64, Fault> {
        let (volume, block) = of_key(key);
        let mountpoint = mountpoint.to_owned();
        self.change(move |inner, state| {
            let now = state.volume("grow", &volume)?.size;
            if size.required.is_some_and(|required| required > now) {
                let detail = format!("it was made {now} bytes large; the controller must grow it first");
                return Err(Fault::new(FaultKind::OutOfRange, "grow", volume, detail));
            }
            let device = device::attach(&inner.image(&volume))?;
            device::refresh(&device)?;
            if !block {
                file_system(&device)?.grow(&device, &mountpoint)?;
            }
            Ok(now)
        })
        .await
    }

    async fn resolve(&self, spec: &VolumeSpec, _caller: &Caller) -> Result<Resolved, Fault> {
        let VolumeSpec::Rbd(rbd) = spec else {
            return Err(Fault::new(FaultKind::Internal, "resolve", "", "a volume of another driver"));
        };
        let (volume, block) = (rbd.volume.clone(), rbd.form == Form::Block);
        self.change(move |_, state| match state.volume("mount", &volume)?.block == block {
            true => Ok(()),
            false => {
                let detail = "a volume is a device or has a file system for all its life";
                Err(Fault::new(FaultKind::InvalidArgument, "mount", volume, detail))
            }
        })
        .await?;
        let key = MountKey::new(format!("{}{}", rbd.volume, if block { BLOCK } else { "" }));
        let key = key.ok_or_else(|| failed("resolve", "an id of ours is no key"))?;
        Ok(Resolved { key, spec: spec.clone(), payload: serde_json::Value::Null })
    }

    async fn attach(&self, resolved: &Resolved, mountpoint: &Path) -> Result<(), Fault> {
        let VolumeSpec::Rbd(spec) = resolved.spec.clone() else {
            return Err(Fault::new(FaultKind::Internal, "mount", "", "a volume of another driver"));
        };
        let mountpoint = mountpoint.to_owned();
        self.change(move |inner, state| {
            state.volume("mount", &spec.volume)?;
            let image = inner.image(&spec.volume);
            let mounted = mount(inner, &spec, &image, &mountpoint);
            if mounted.is_err() {
                let _ = host::mount::unmount(&mountpoint);
                let _ = device::detach(&image);
            }
            mounted
        })
        .await
    }

    async fn inspect(&self, _key: &MountKey, mountpoint: &Path) -> Inspection {
        let mountpoint = mountpoint.to_owned();
        let seen = self.run(move |_| {
            let table = MountTable::own().map_err(|error| failed("look at", error))?;
            Ok(table.at(&mountpoint).is_some())
        });
        match seen.await {
            Ok(true) => Inspection::Live(Box::default()),
            Ok(false) => Inspection::Absent,
            Err(fault) => Inspection::Live(Box::new(WorkerReport {
                trouble: Some(fault.to_string()),
                ..Default::default()
            })),
        }
    }

    async fn refresh(&self, _key: &MountKey) -> Result<(), Fault> {
        Ok(())
    }

    async fn detach(&self, key: &MountKey, mountpoint: &Path) -> Result<(), Fault> {
        let (volume, _) = of_key(key);
        let (key, mountpoint) = (key.clone(), mountpoint.to_owned());
        self.change(move |inner, _| {
            match host::mount::unmount(&mountpoint) {
                Ok(()) | Err(MountError::NotMounted(_)) => {}
                Err(error @ MountError::Busy(_)) => {
                    return Err(Fault::new(FaultKind::InUse, "unmount", key.as_str(), error.to_string()));
                }
                Err(error) => return Err(failed("unmount", error)),
            }
            device::detach(&inner.image(&volume))
        })
        .await
    }

    async fn survivors(&self) -> Vec<Survivor> {
        let found = self.run(|inner| {
            let table = MountTable::own().map_err(|error| failed("look for mounts", error))?;
            let ours = table.entries().iter().filter_map(|entry| {
                let name = entry.mountpoint.strip_prefix(&inner.config.mount_dir).ok()?;
                let key = MountKey::new(name.to_str()?)?;
                Some(Survivor { key, mountpoint: entry.mountpoint.clone(), alive: true })
            });
            Ok(ours.collect())
        });
        found.await.unwrap_or_default()
    }
}

/// The volume of a key, and whether it is a device.
fn of_key(key: &MountKey) -> (String, bool) {
    match key.as_str().strip_suffix(BLOCK) {
        Some(volume) => (volume.to_owned(), true),
        None => (key.as_str().to_owned(), false),
    }
}

fn mount(inner: &Inner, spec: &RbdSpec, image: &Path, mountpoint: &Path) -> Result<(), Fault> {
    if !image.is_file() {
        return Err(Fault::new(FaultKind::NotFound, "mount", &spec.volume, "its image file is gone"));
    }
    let device = device::attach(image)?;
    match &spec.form {
        Form::Block => {
            device::run("mount", &["-t", "tmpfs", "-o", "size=64k,mode=755", "device"], &[mountpoint])?;
            let number = std::fs::metadata(&device).map_err(|error| failed("mount", error))?.rdev();
            let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
            let node = mountpoint.join(DEVICE_NODE);
            let (kind, mode) =
                (nix::sys::stat::SFlag::S_IFBLK, nix::sys::stat::Mode::from_bits_truncate(0o660));
            let number = nix::sys::stat::makedev(major, minor);
            nix::sys::stat::mknod(&node, kind, mode, number).map_err(|error| failed("mknod", error))
        }
        Form::Filesystem { fs_type, mount_flags, group } => {
            let wanted = match fs_type {
                None => None,
                Some(name) => Some(FileSystem::of(name).ok_or_else(|| {
                    let detail = format!("unknown file system {name}; known: ext4, xfs");
                    Fault::new(FaultKind::InvalidArgument, "mount", &spec.volume, detail)
                })?),
            };
            let there = if device::content(&device).is_some() {
                file_system(&device)?
            } else {
                let made = wanted.unwrap_or(inner.file_system);
                made.format(&device)?;
                made
            };
            if wanted.is_some_and(|wanted| wanted != there) {
                let detail = format!("it has the file system {}", there.name());
                return Err(Fault::new(FaultKind::InvalidArgument, "mount", &spec.volume, detail));
            }
            let flags = mount_flags.iter().map(String::as_str).chain(there.options().iter().copied());
            let flags: Vec<&str> = std::iter::once("rw").chain(flags).collect();
            let flags = flags.join(",");
            device::run("mount", &["-t", there.name(), "-o", &flags], &[&device, mountpoint])?;
            // A volume that was grown while it was used nowhere.
            if FileSystem::growable() == Some(there) {
                there.grow(&device, mountpoint)?;
            }
            group.map_or(Ok(()), |group| give(mountpoint, group).map_err(|error| failed("mount", error)))
        }
    }
}

/// The file system on a device.
fn file_system(device: &Path) -> Result<FileSystem, Fault> {
    let content = device::content(device).unwrap_or_default();
    FileSystem::of(&content).ok_or_else(|| {
        let detail = format!("it holds {content:?}, which is no file system of ours");
        Fault::new(FaultKind::Unsupported, "mount", device.display().to_string(), detail)
    })
}

/// Gives everything to a group, as kubelet does for drivers that cannot: group writable, new files too.
fn give(path: &Path, group: u32) -> std::io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    std::os::unix::fs::lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let bits = if metadata.is_dir() { 0o2070 } else { 0o060 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(metadata.mode() & 0o7777 | bits))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), group)?;
        }
    }
    Ok(())
}
