//! From the arguments of a call to the one line that kubelet reads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use volume::Driver;

use crate::call::{self, Verb};
use crate::client::{ClientError, Daemon, PATIENCE};
use crate::settings::Settings;
use crate::status::{Reply, Status};
use crate::wire::{MountRequest, Question, UnmountRequest};
use crate::{drivers, place};

/// How long the daemon may take to unmount; its own limit is 50 s.
const UNMOUNT: Duration = Duration::from_secs(60);
/// How long the daemon may take for what it answers at once.
const PROMPT: Duration = Duration::from_secs(10);
/// A daemon that went away in the middle of a mount (an upgrade) may take so long to come back.
const RETURN: Duration = Duration::from_secs(5);
/// Pause between two looks for it.
const PAUSE: Duration = Duration::from_millis(50);

/// What a call depends on.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// With the program's name first.
    pub arguments: Vec<OsString>,
    /// The directory of the executable, where its settings file lies.
    pub directory: PathBuf,
    /// `VOLPLANE_RUN_DIR`.
    pub run_dir: Option<PathBuf>,
}

impl Environment {
    /// That of this process.
    pub fn of_this_process() -> Environment {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        // The name that kubelet used: the executable behind it may be shared by several drivers.
        let program = arguments.first().map(PathBuf::from).filter(|program| program.components().count() > 1);
        let program = program.or_else(|| std::env::current_exe().ok()).unwrap_or_default();
        let directory = program.parent().map(Path::to_owned).unwrap_or_default();
        let run_dir = std::env::var_os("VOLPLANE_RUN_DIR").map(PathBuf::from);
        Environment { arguments, directory, run_dir }
    }
}

/// The end of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    reply: Reply,
    has_secrets: bool,
}

impl Outcome {
    /// For a defect of ours.
    pub fn defect() -> Outcome {
        // Nobody knows what the arguments were.
        Outcome { reply: Reply::failure("volplane-flexvolume has a defect and gave up"), has_secrets: true }
    }

    /// One JSON object and a line end.
    pub fn line(&self) -> String {
        serde_json::to_string(&self.reply).expect("plain data becomes JSON") + "\n"
    }

    /// 0 with success, else 1, but 0 when the call had secrets: kubelet logs the arguments of every call that ends with
    /// another status (`pkg/volume/flexvolume/driver-call.go`), and takes the word in the answer just as well.
    pub fn exit_status(&self) -> u8 {
        match self.reply.status {
            Status::Success => 0,
            Status::Failure | Status::NotSupported => u8::from(!self.has_secrets),
        }
    }
}

/// Carries a call out.
pub fn answer(environment: &Environment) -> Outcome {
    let mut has_secrets = false;
    let reply = reply(environment, &mut has_secrets);
    Outcome { reply, has_secrets }
}

fn reply(environment: &Environment, has_secrets: &mut bool) -> Reply {
    let mut arguments = environment.arguments.iter();
    let program = arguments.next().map(PathBuf::from).unwrap_or_default();
    let Some(word) = arguments.next() else {
        return Reply::not_supported(
            "no call was named; kubelet runs this program, for example as `cvmfs init`",
        );
    };
    let rest = arguments.as_slice();
    // Told from the texts alone: also what cannot be read may hold secrets.
    *has_secrets = rest.iter().any(|argument| argument.to_string_lossy().contains("secret"));
    let Some(verb) = word.to_str().and_then(Verb::of) else {
        return Reply::not_supported(format!("{:?} is no call", short(&word.to_string_lossy())));
    };
    // The directory tells it when the program is called by another name.
    let named = program.file_name().map(|name| environment.directory.join(name)).unwrap_or_default();
    let Some(driver) = drivers::of_program(&program).or_else(|| drivers::of_program(&named)) else {
        return Reply::failure(format!(
            "{} names no driver: `volplane flexvolume install` places this program as VENDOR~DRIVER/DRIVER, with cvmfs, \
             eos or rbd for DRIVER",
            short(&program.to_string_lossy())
        ));
    };
    if !drivers::has(driver, verb) {
        return Reply::not_supported(format!(
            "the driver {driver} has no {}",
            short(&word.to_string_lossy())
        ));
    }
    match verb {
        Verb::Init => Reply::initialised(drivers::capabilities(driver)),
        Verb::Mount => mount(environment, driver, rest),
        Verb::Unmount => unmount(environment, rest),
        Verb::GetVolumeName
        | Verb::Attach
        | Verb::WaitForAttach
        | Verb::IsAttached
        | Verb::MountDevice
        | Verb::UnmountDevice
        | Verb::Detach
        | Verb::ExpandVolume
        | Verb::ExpandFs => Reply::not_supported("no driver has this call"),
    }
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

fn mount(environment: &Environment, driver: Driver, arguments: &[OsString]) -> Reply {
    let mount = match call::mount(arguments) {
        Ok(mount) => mount,
        Err(error) => return Reply::failure(error.to_string()),
    };
    let settings = match Settings::of(&environment.directory, environment.run_dir.clone()) {
        Ok(settings) => settings,
        Err(error) => return Reply::failure(error.to_string()),
    };
    // What is there already was not left by this call, and is not this call's to take away.
    let before = place::mounted(&mount.target);
    if matches!(before, Ok(None)) && place::is_occupied(&mount.target) {
        return Reply::failure(format!(
            "{} is not empty and nothing is mounted there: somebody else's files, which are left alone",
            mount.target
        ));
    }
    let request = MountRequest { driver, target: mount.target, options: mount.options };
    match mounted(&settings, &request) {
        Ok(()) => Reply::success(),
        Err(error) => {
            let mut message = error.to_string();
            if matches!(error, ClientError::Broken { .. })
                && matches!(before, Ok(None))
                && let Err(error) = place::clear(&request.target)
            {
                message = format!("{message}; what it left at {} stays: {error}", request.target);
            }
            Reply::failure(message)
        }
    }
}

/// Asks for the mount and confirms it. A daemon that goes away meanwhile and comes back is asked again: that is safe, as a
/// repeated mount is the same mount.
fn mounted(settings: &Settings, request: &MountRequest) -> Result<(), ClientError> {
    let limit = settings.mount_deadline();
    let until = Instant::now() + limit;
    let mut daemon = Daemon::greet(&settings.socket(), PATIENCE)?;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::Late(limit));
        }
        let asked = daemon.ask(&Question::FlexvolumeMount(request), left);
        match asked.and_then(|()| daemon.confirm(PROMPT)) {
            Ok(()) => return Ok(()),
            Err(broken @ ClientError::Broken { .. }) => {
                daemon = returned(settings, until).ok_or(broken)?;
            }
            // Our hang-up makes the daemon take it back.
            Err(ClientError::Late(_)) => return Err(ClientError::Late(limit)),
            Err(error) => return Err(error),
        }
    }
}

/// Waits for a daemon that went away.
fn returned(settings: &Settings, until: Instant) -> Option<Daemon> {
    let until = until.min(Instant::now() + RETURN);
    while Instant::now() < until {
        std::thread::sleep(PAUSE);
        let left = until.saturating_duration_since(Instant::now());
        if let Ok(daemon) = Daemon::greet(&settings.socket(), left) {
            return Some(daemon);
        }
    }
    None
}

fn unmount(environment: &Environment, arguments: &[OsString]) -> Reply {
    let target = match call::unmount(arguments) {
        Ok(target) => target,
        Err(error) => return Reply::failure(error.to_string()),
    };
    let settings = match Settings::of(&environment.directory, environment.run_dir.clone()) {
        Ok(settings) => settings,
        Err(error) => return Reply::failure(error.to_string()),
    };
    let request = UnmountRequest { target };
    let released = Daemon::greet(&settings.socket(), PATIENCE)
        .and_then(|mut daemon| daemon.ask(&Question::FlexvolumeUnmount(&request), UNMOUNT));
    match released {
        // The books may have been lost while the mount was not.
        Ok(()) => match place::clear(&request.target).and_then(|()| place::mounted(&request.target)) {
            Ok(None) => Reply::success(),
            Ok(Some(fs_type)) => Reply::failure(format!(
                "something else ({fs_type}) is mounted at {}; it is left alone, unmount it by hand",
                request.target
            )),
            Err(error) => Reply::failure(format!("unmount {}: {error}", request.target)),
        },
        // Without a daemon nothing is taken from it; but where nothing is mounted there is nothing to do.
        Err(error @ ClientError::Unreachable { .. }) => match place::mounted(&request.target) {
            Ok(None) => Reply::success(),
            Ok(Some(_)) | Err(_) => Reply::failure(error.to_string()),
        },
        Err(error) => Reply::failure(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
