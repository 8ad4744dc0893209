//! `volplane cvmfs`: configuration, publishing, serving.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use cvmfs::client::config::{ConfigTree, chain};
use cvmfs::client::fqrn::Fqrn;
use cvmfs::client::hash::{Algorithm, Compression};
use cvmfs::publish::serve::{FileServer, ServeLimits};
use cvmfs::publish::{
    CreateOptions, NewTag, Ownership, Phase, Progress, PublishError, PublishOptions, Publisher, SigningKeys,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::CliError;

#[derive(Debug, Subcommand)]
pub(super) enum CvmfsCommand {
    /// Show every parameter of a repository and the file it comes from
    Showconfig(ShowconfigArguments),
    /// Publish a directory tree as a signed repository
    Publish(PublishArguments),
    /// Sign the list of trusted certificates anew, before it expires
    Resign(ResignArguments),
    /// Serve a directory over HTTP
    Serve(ServeArguments),
}

#[derive(Debug, Args)]
pub(super) struct ShowconfigArguments {
    /// Fully qualified repository name
    fqrn: String,
    /// CernVM-FS client configuration of the site
    #[arg(long, value_name = "DIR", default_value = "/etc/cvmfs")]
    cvmfs_config_dir: PathBuf,
}

/// Hash algorithms by their names in the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HashName {
    Sha1,
    Rmd160,
    Shake128,
}

impl From<HashName> for Algorithm {
    fn from(name: HashName) -> Algorithm {
        match name {
            HashName::Sha1 => Algorithm::Sha1,
            HashName::Rmd160 => Algorithm::Rmd160,
            HashName::Shake128 => Algorithm::Shake128,
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "The first publication makes the repository and, where there are none, its keys: FQRN.masterkey and FQRN.key are \
                        secret, FQRN.pub goes to the clients (CVMFS_PUBLIC_KEY). Later ones add a revision that holds exactly the tree.\n\
                        A file `.cvmfscatalog` in a directory, or a line in `.cvmfsdirtab` at the top, gives a part of the tree a \
                        catalog of its own.\n\n\
                        Example:\n  \
                        volplane cvmfs publish sw.example.org ./tree --repository-dir /srv/www/cvmfs/sw.example.org \\\n      \
                        --keys-dir /root/cvmfs-keys --tag v1\n  \
                        volplane cvmfs serve /srv/www --listen 127.0.0.1:8000\n  \
                        volplane mount -o server=http://127.0.0.1:8000/cvmfs/sw.example.org \\\n      \
                        -o public_key=/root/cvmfs-keys/sw.example.org.pub sw.example.org /mnt"
)]
pub(super) struct PublishArguments {
    /// Fully qualified repository name, for example sw.example.org
    fqrn: String,
    /// The tree to publish
    source: PathBuf,
    /// Where the repository lies (what a web server serves); made at the first publication
    #[arg(long, value_name = "DIR")]
    repository_dir: PathBuf,
    /// Where the keys lie; made with mode 0700 at the first publication
    #[arg(long, value_name = "DIR")]
    keys_dir: PathBuf,
    /// Name this revision
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// What the tag is about
    #[arg(long, value_name = "TEXT", requires = "tag", default_value = "")]
    description: String,
    /// Hash algorithm of a new repository
    #[arg(long, value_enum, default_value = "sha1")]
    hash: HashName,
    /// Store files as they are
    #[arg(long)]
    no_compression: bool,
    /// Seconds after which clients look for a new revision
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Everything belongs to UID:GID instead of the tree's owners
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    owner: Option<(u32, u32)>,
    /// Days for which a new list of trusted certificates is valid
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    whitelist_days: u64,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct ResignArguments {
    /// Where the repository lies
    #[arg(long, value_name = "DIR")]
    repository_dir: PathBuf,
    /// Where the keys lie, the master key among them
    #[arg(long, value_name = "DIR")]
    keys_dir: PathBuf,
    /// Days for which the list is valid
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u64,
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Document root
    dir: PathBuf,
    /// Address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
}

pub(super) fn run(command: &CvmfsCommand) -> Result<(), CliError> {
    match command {
        CvmfsCommand::Showconfig(arguments) => showconfig(arguments),
        CvmfsCommand::Publish(arguments) => publish(arguments),
        CvmfsCommand::Resign(arguments) => resign(arguments),
        CvmfsCommand::Serve(arguments) => serve(arguments),
    }
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.ok_or_else(|| "an owner has the form UID:GID, for example 0:0".to_owned())
}

/// One line per parameter in the form of the C++ client's `cvmfs_config showconfig`.
fn showconfig(arguments: &ShowconfigArguments) -> Result<(), CliError> {
    let fqrn: Fqrn = arguments.fqrn.parse().map_err(CliError::other)?;
    let tree = ConfigTree::new(&arguments.cvmfs_config_dir);
    let parameters = chain::read(&tree, Some(&fqrn), &volume::OptionMap::new()).map_err(CliError::other)?;
    for (name, setting) in parameters.iter() {
        println!("{name}={}    # from {}", setting.value, setting.origin);
    }
    Ok(())
}

fn publish(arguments: &PublishArguments) -> Result<(), CliError> {
    let publisher = open_or_create(arguments)?;
    let mut options = PublishOptions::default();
    if arguments.no_compression {
        options.compression = Compression::None;
    }
    if let Some((uid, gid)) = arguments.owner {
        options.ownership = Ownership::Fixed { uid, gid };
    }
    options.ttl = arguments.ttl.map(Duration::from_secs);
    options.tag = arguments
        .tag
        .as_ref()
        .map(|name| NewTag { name: name.clone(), description: arguments.description.clone() });
    let bar = Bar::new(arguments.quiet);
    let published = publisher.publish(&arguments.source, &options, &bar)?;
    bar.bar.finish_and_clear();
    if published.changed {
        println!(
            "{} revision {}: {} entries, {} catalogs, {} new objects ({} bytes), root {}",
            publisher.fqrn(),
            published.revision,
            published.entries,
            published.catalogs,
            published.objects,
            published.bytes,
            published.root
        );
    } else {
        println!("{} revision {}: nothing has changed", publisher.fqrn(), published.revision);
    }
    Ok(())
}

fn open_or_create(arguments: &PublishArguments) -> Result<Publisher, CliError> {
    let (fqrn, dir) = (arguments.fqrn.as_str(), arguments.repository_dir.as_path());
    if dir.join(".cvmfspublished").exists() {
        let keys = SigningKeys::load(&arguments.keys_dir, fqrn)?;
        let publisher = Publisher::open(dir, keys)?;
        if publisher.fqrn() != fqrn {
            let found = publisher.fqrn();
            return Err(CliError::Other(format!(
                "{} holds the repository {found}, not {fqrn}",
                dir.display()
            )));
        }
        return Ok(publisher);
    }
    let keys = load_or_make_keys(&arguments.keys_dir, fqrn)?;
    let mut options = CreateOptions::new(fqrn);
    options.algorithm = arguments.hash.into();
    options.whitelist_validity = days(arguments.whitelist_days);
    if let Some(ttl) = arguments.ttl {
        options.ttl = Duration::from_secs(ttl);
    }
    Ok(Publisher::create(dir, keys, &options)?)
}

fn load_or_make_keys(dir: &Path, fqrn: &str) -> Result<SigningKeys, PublishError> {
    if dir.join(format!("{fqrn}.key")).exists() {
        return SigningKeys::load(dir, fqrn);
    }
    let keys = SigningKeys::generate(fqrn)?;
    keys.store(dir, fqrn)?;
    Ok(keys)
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(24 * 3600))
}

fn resign(arguments: &ResignArguments) -> Result<(), CliError> {
    let fqrn = Publisher::name_of(&arguments.repository_dir)?;
    let keys = SigningKeys::load(&arguments.keys_dir, &fqrn)?;
    Publisher::open(&arguments.repository_dir, keys)?.resign_whitelist(days(arguments.days))?;
    println!("{fqrn}: the list of trusted certificates is valid for {} days", arguments.days);
    Ok(())
}

fn serve(arguments: &ServeArguments) -> Result<(), CliError> {
    let server = FileServer::bind(&arguments.dir, arguments.listen, ServeLimits::default())?;
    println!("serving {} at http://{}/", arguments.dir.display(), server.address());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(CliError::other)?;
    runtime.block_on(server.run(async {
        let _ = tokio::signal::ctrl_c().await;
    }))?;
    Ok(())
}

/// A progress bar on standard error; hidden where that is no terminal.
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new(quiet: bool) -> Bar {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
        Bar { bar }
    }
}

impl Progress for Bar {
    fn phase(&self, phase: Phase) {
        let text = match phase {
            Phase::Previous => "reading the previous revision",
            Phase::Scan => "looking at the tree",
            Phase::Content => "storing files",
            Phase::Catalogs => "writing catalogs",
            Phase::Commit => "committing",
        };
        self.bar.set_message(text);
    }

    fn total(&self, _files: u64, bytes: u64) {
        let style =
            ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_length(bytes);
    }

    fn done(&self, _files: u64, bytes: u64) {
        self.bar.inc(bytes);
    }
}
