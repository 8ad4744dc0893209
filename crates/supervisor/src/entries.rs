//! The mounts of a pool by their keys, and beside them those that are released, whose keys are free again.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use volume::MountKey;

use crate::keeper::{Command, View};

/// The pool's end of a keeper.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) commands: Sender<Command>,
    pub(crate) wake: Arc<EventFd>,
    pub(crate) view: Arc<Mutex<View>>,
}

impl Handle {
    pub(crate) fn send(&self, command: Command) {
        // A keeper that has ended drops the command, and whoever waits for the answer sees that.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

/// All keepers of a pool.
#[derive(Default)]
pub(crate) struct Entries {
    /// Those that can be asked for.
    pub(crate) live: HashMap<MountKey, Handle>,
    /// The others; the pool holds their ends so that they notice when it goes.
    pub(crate) released: Vec<(MountKey, Handle)>,
}

/// A keeper's way back to its own entry. It owns no sender: the keeper must see the pool's end as a closed channel.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) entries: Weak<Mutex<Entries>>,
    pub(crate) key: MountKey,
    pub(crate) view: Arc<Mutex<View>>,
}

impl Entry {
    /// Takes the entry out, wherever it is.
    pub(crate) fn remove(&self) {
        let Some(entries) = self.entries.upgrade() else { return };
        let mut entries = entries.lock();
        let own = |handle: &Handle| Arc::ptr_eq(&handle.view, &self.view);
        if entries.live.get(&self.key).is_some_and(own) {
            entries.live.remove(&self.key);
        }
        entries.released.retain(|(_, handle)| !own(handle));
    }

    /// How many mounts are released.
    pub(crate) fn released(&self) -> usize {
        self.entries.upgrade().map_or(0, |entries| entries.lock().released.len())
    }

    /// Frees the key.
    pub(crate) fn release(&self) {
        let Some(entries) = self.entries.upgrade() else { return };
        let mut entries = entries.lock();
        let own = |handle: &Handle| Arc::ptr_eq(&handle.view, &self.view);
        if entries.live.get(&self.key).is_some_and(own)
            && let Some(handle) = entries.live.remove(&self.key)
        {
            entries.released.push((self.key.clone(), handle));
        }
    }
}
