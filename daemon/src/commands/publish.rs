//! `cvmfs publish` and `cvmfs serve`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cvmfs::publish::serve::{FileServer, ServeError, ServeLimits};
use cvmfs::publish::{
    CreateOptions, NewTag, Phase, Progress, PublishError, PublishOptions, Publisher, SigningKeys,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli;

/// Publishes, with a progress bar where somebody sees it.
pub(crate) fn run(arguments: &cli::Publish) -> Result<(), PublishError> {
    let name = &arguments.name;
    let root = arguments.repository_dir.clone().unwrap_or_else(|| PathBuf::from(name));
    let beside = || root.parent().unwrap_or(Path::new("")).join(format!("{name}.keys"));
    let key_directory = arguments.keys_dir.clone().unwrap_or_else(beside);
    let has_keys = key_directory.join(format!("{name}.key")).exists();
    let load = || SigningKeys::load(&key_directory, name);
    let publisher = if root.join(".cvmfspublished").exists() {
        named(&root, name)?;
        Publisher::open(&root, load()?)?
    } else {
        let keys = if has_keys { load()? } else { SigningKeys::generate(name)? };
        if !has_keys {
            // Stored first: a repository whose keys are lost can never change again.
            keys.store(&key_directory, name)?;
        }
        let mut options = CreateOptions::new(name);
        options.ttl = arguments.ttl.map_or(options.ttl, Duration::from_secs);
        Publisher::create(&root, keys, &options)?
    };
    let options = PublishOptions {
        tag: arguments.tag.clone().map(|name| NewTag { name, description: String::new() }),
        ttl: arguments.ttl.map(Duration::from_secs),
        ..PublishOptions::default()
    };
    let bar = Bar::new(arguments.quiet);
    let publication = publisher.publish(&arguments.source, &options, &bar);
    bar.0.finish_and_clear();
    let done = publication?;
    let what = if done.changed { "published" } else { "nothing has changed since" };
    println!(
        "{name}: {what} revision {} (hash {}): {} entries, {} new objects, {} bytes written",
        done.revision, done.root, done.entries, done.objects, done.bytes
    );
    if !has_keys {
        println!("its keys are in {}; give {name}.pub to those who read it", key_directory.display());
    }
    Ok(())
}

/// A repository's directory must hold the repository that was named.
fn named(root: &Path, name: &str) -> Result<(), PublishError> {
    let found = Publisher::name_of(root)?;
    if found == name {
        return Ok(());
    }
    Err(PublishError::Option {
        option: "name",
        reason: format!("is {name}, but {} holds the repository {found}", root.display()),
    })
}

/// Serves a directory until Ctrl-C.
pub(crate) fn serve(directory: &Path, listen: std::net::SocketAddr) -> Result<(), ServeError> {
    let server = FileServer::bind(directory, listen, ServeLimits::default())?;
    println!("serving {} at http://{}/ (Ctrl-C ends it)", directory.display(), server.address());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Start)?;
    runtime.block_on(server.run(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }))
}

struct Bar(ProgressBar);

impl Bar {
    fn new(quiet: bool) -> Bar {
        if quiet {
            return Bar(ProgressBar::hidden());
        }
        // indicatif draws nothing where stderr is no terminal.
        let bar = ProgressBar::new(0);
        let style = "{msg:18} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(
            ProgressStyle::with_template(style).expect("the template is constant").progress_chars("=> "),
        );
        Bar(bar)
    }
}

impl Progress for Bar {
    fn phase(&self, phase: Phase) {
        self.0.set_message(match phase {
            Phase::Previous => "last revision",
            Phase::Scan => "looking at files",
            Phase::Content => "storing files",
            Phase::Catalogs => "writing catalogs",
            Phase::Commit => "signing",
        });
    }

    fn total(&self, _files: u64, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn done(&self, _files: u64, bytes: u64) {
        self.0.inc(bytes);
    }
}
