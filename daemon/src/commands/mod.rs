//! What the command line does without being the daemon.

pub(crate) mod daemon_side;
pub(crate) mod flexvolume;
pub(crate) mod foreground;
pub(crate) mod manual;
pub(crate) mod nursery;
pub(crate) mod publish;
pub(crate) mod showconfig;
