//! What must outlive the daemon, in SQLite: WAL and `synchronous=FULL`, so that what was answered is on the disk.
//!
//! One thread owns the connection. Requests that wait while it syncs go into the next transaction together, so five hundred
//! mounts at once cost few syncs. A file that is damaged is moved aside and a new one begun: the registry then
//! learns from the mount table what there is.

mod load;
mod store;

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{mpsc, oneshot};
use volume::{Fault, FaultKind};

pub(crate) use self::load::Loaded;
use crate::schema::MIGRATIONS;
use crate::table::Change;

/// Requests that may wait; more wait outside, in their senders.
const QUEUE: usize = 256;
/// Requests in one transaction.
const BATCH: usize = 64;

/// The journal cannot be used or written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("{}: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    #[error("{}: is in use by another daemon; give each its own state_dir", .0.display())]
    Locked(PathBuf),
    #[error(
        "{}: was written by a newer version (layout {version}, this one knows {}); use that version, or move the file away",
        path.display(), MIGRATIONS.len()
    )]
    Newer { path: PathBuf, version: i64 },
    #[error("the journal could not be written: {0}")]
    Write(String),
    #[error("the disk under the journal is full")]
    Full,
    #[error("the journal is closed")]
    Closed,
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Fault {
        let kind = match error {
            JournalError::Open { .. } | JournalError::Write(_) => FaultKind::Internal,
            JournalError::Locked(_) => FaultKind::InUse,
            JournalError::Newer { .. } => FaultKind::Unsupported,
            JournalError::Full => FaultKind::ResourceExhausted,
            JournalError::Closed => FaultKind::Cancelled,
        };
        Fault::new(kind, "write the journal", "", error.to_string())
    }
}

#[derive(Debug)]
struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// The journal. Dropping it waits for what was handed in.
#[derive(Debug)]
pub(crate) struct Journal {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens or makes the file, migrates it, and reads it. Mounts and references of another boot are dropped, as the
    /// kernel has dropped them. Blocks on the disk.
    pub(crate) fn open(path: &Path, boot_id: &str) -> Result<(Journal, Loaded), JournalError> {
        let opened = open(path).and_then(|connection| {
            let loaded = load::load(&connection, boot_id)?;
            Ok((connection, loaded))
        });
        let (connection, loaded) = match opened {
            Err(error) if is_damage(&error) => {
                let volumes = load::salvage(path);
                let aside = move_aside(path).map_err(|source| JournalError::Open {
                    path: path.to_owned(),
                    reason: format!("is damaged ({error}) and cannot be moved aside: {source}"),
                })?;
                tracing::error!(
                    journal = %path.display(), moved_to = %aside.display(), %error,
                    volumes = volumes.len(),
                    "the journal is damaged; begun anew with the volumes that could still be read, mounts are taken from the mount table"
                );
                let mut connection = open(path).map_err(|error| refusal(path, &error))?;
                store::write(&mut connection, volumes.iter())?;
                let mut loaded = load::load(&connection, boot_id).map_err(|error| refusal(path, &error))?;
                loaded.damaged = Some(aside);
                (connection, loaded)
            }
            other => other.map_err(|error| refusal(path, &error))?,
        };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || serve(connection, queue))
            .map_err(|error| JournalError::Open { path: path.to_owned(), reason: error.to_string() })?;
        Ok((Journal { jobs: Some(jobs), thread: Some(thread) }, loaded))
    }

    /// Writes the changes in one transaction; they are on the disk when it returns.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        let jobs = self.jobs.as_ref().ok_or(JournalError::Closed)?;
        let (done, answer) = oneshot::channel();
        jobs.send(Job { changes, done }).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by its hook already.
            let _ = thread.join();
        }
    }
}

fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        let together = store::write(&mut connection, batch.iter().flat_map(|job| &job.changes));
        let single = batch.len() == 1;
        for job in batch.drain(..) {
            // If one of several is refused, each gets its own answer.
            let answer = match &together {
                Ok(()) => Ok(()),
                Err(error) if single => Err(error.clone()),
                Err(_) => store::write(&mut connection, job.changes.iter()),
            };
            // The one who asked may have been dropped with its runtime.
            let _ = job.done.send(answer);
        }
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // An old daemon that is just ending is waited for.
    connection.busy_timeout(std::time::Duration::from_secs(1))?;
    // Exclusive: a second daemon on the same directory is refused at once, and WAL needs no shared memory file.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(damage(verdict));
    }
    migrate(&mut connection)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let newest = MIGRATIONS.len() as i64;
    let Some(done) = usize::try_from(version).ok().filter(|_| version <= newest) else {
        return Err(rusqlite::Error::IntegralValueOutOfRange(0, version));
    };
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", newest)?;
    transaction.commit()
}

fn damage(text: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(text))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn refusal(path: &Path, error: &rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    match error {
        rusqlite::Error::IntegralValueOutOfRange(_, version) => {
            JournalError::Newer { path, version: *version }
        }
        error if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => JournalError::Locked(path),
        error => JournalError::Open { path, reason: error.to_string() },
    }
}

/// Gives the file and what belongs to it another name.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let number = (1..1000).find(|number| !name(&format!(".damaged-{number}")).exists());
    let aside = name(&format!(".damaged-{}", number.ok_or(io::ErrorKind::AlreadyExists)?));
    std::fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        let mut target = aside.as_os_str().to_owned();
        target.push(suffix);
        match std::fs::rename(name(suffix), target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;
