//! `volplane status`.

use std::fmt::Write as _;

use clap::Args;
use volume::MountStatus;

use super::{CliError, Reach};
use crate::control::{self, Request, Response, Status};

#[derive(Debug, Args)]
#[command(
    after_help = "With --json: {\"version\", \"pid\", \"mounts\": [{\"key\", \"backend\", \"state\", \"mountpoint\", \
                        \"worker_pid\", \"references\", \"in_use_without_reference\", \"last_error\", \"revision\", \"health\", \
                        \"restarts\", \"details\"}]}"
)]
pub(super) struct StatusArguments {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(arguments: &StatusArguments) -> Result<(), CliError> {
    let Response::Status(status) = control::call(&arguments.reach.run_dir, &Request::Status)? else {
        return Err(CliError::Other("the daemon answered something else; is it of the same version?".into()));
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&status).map_err(CliError::other)?);
    } else {
        print!("{}", shown(&status));
    }
    Ok(())
}

/// The text for people: a line per mount, indented lines for what is special.
fn shown(status: &Status) -> String {
    let mut text = format!("volplane {} (process {})\n", status.version, status.pid);
    if status.mounts.is_empty() {
        text.push_str("no mounts\n");
    }
    for mount in &status.mounts {
        show_mount(mount, &mut text).expect("writing to a string cannot fail");
    }
    text
}

fn show_mount(mount: &MountStatus, text: &mut String) -> std::fmt::Result {
    let worker = mount.worker_pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
    writeln!(text, "\n{}  {}  {}", mount.key, mount.state.as_str(), mount.health)?;
    writeln!(text, "  at          {}", mount.mountpoint.display())?;
    if let Some(revision) = &mount.revision {
        writeln!(text, "  serves      {revision}")?;
    }
    writeln!(text, "  worker      {worker}, started again {} times", mount.restarts)?;
    for (name, value) in &mount.details {
        writeln!(text, "  {name:<11} {value}")?;
    }
    for reference in &mount.references {
        writeln!(text, "  used by     {} {} {}", reference.frontend.as_str(), reference.scope, reference.id)?;
    }
    if mount.in_use_without_reference {
        writeln!(text, "  in use without reference: some process still sees it; it goes when it is free")?;
    }
    if let Some(error) = &mount.last_error {
        writeln!(text, "  last error  {error}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use volume::{Driver, Frontend, MountKey, MountState, RefId};

    use super::*;

    #[test]
    fn a_person_sees_what_is_wrong() {
        let reference = RefId { frontend: Frontend::Docker, scope: "v".into(), id: "ab12".into() };
        let mount = MountStatus {
            key: MountKey::new("cms.cern.ch").unwrap(),
            backend: Driver::Cvmfs,
            state: MountState::Live,
            mountpoint: "/run/volplane/mounts/cms.cern.ch".into(),
            worker_pid: Some(77),
            references: vec![reference],
            in_use_without_reference: true,
            last_error: Some("fetch http://x: refused".into()),
            revision: Some("revision 6".into()),
            health: "healthy".into(),
            restarts: 2,
            details: [("cache_bytes".to_owned(), "12".to_owned())].into(),
        };
        let status = Status { version: "1".into(), pid: 3, mounts: vec![mount] };
        let text = shown(&status);
        for part in [
            "cms.cern.ch  live  healthy",
            "revision 6",
            "77",
            "2 times",
            "ab12",
            "refused",
            "goes when it is free",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
