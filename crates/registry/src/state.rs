//! The life of a mount as data: which event leads from which state to which.
//!
//! An operation never sets a state; it reports what happened, and the table says what that means. An empty cell is an
//! event that cannot happen in that state: a bug, which is refused and logged instead of being written down.

use volume::MountState;

/// What happens to a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The backend is about to be asked to mount.
    AttachStarts,
    /// It has mounted.
    Attached,
    /// It said no, and nothing is left.
    AttachFailed,
    /// It gave no answer in time: anything may be there.
    AttachUnknown,
    /// Looked at: served.
    FoundLive,
    /// Looked at: there, but nobody serves it.
    FoundDead,
    /// Looked at: not there.
    FoundAbsent,
    /// The backend is about to be asked to unmount.
    DetachStarts,
    /// It is gone.
    Detached,
    /// The kernel said busy: nothing has changed, and it was served before.
    DetachBusyLive,
    /// The kernel said busy: nothing has changed, and it was dead before.
    DetachBusyDead,
    /// An error, or no answer in time: anything may be there.
    DetachUnknown,
}

const STATES: [MountState; 5] =
    [MountState::Absent, MountState::Attaching, MountState::Live, MountState::Stale, MountState::Detaching];

type Row = [Option<MountState>; STATES.len()];

/// One row per event; columns: absent, attaching, live, stale, detaching.
#[rustfmt::skip]
fn row(event: Event) -> Row {
    const A: Option<MountState> = Some(MountState::Absent);
    const M: Option<MountState> = Some(MountState::Attaching);
    const L: Option<MountState> = Some(MountState::Live);
    const S: Option<MountState> = Some(MountState::Stale);
    const D: Option<MountState> = Some(MountState::Detaching);
    const X: Option<MountState> = None;
    match event {
        //                        absent attaching live stale detaching
        Event::AttachStarts   => [M,     X,        X,   X,    X],
        Event::Attached       => [X,     L,        X,   X,    X],
        Event::AttachFailed   => [X,     A,        X,   X,    X],
        Event::AttachUnknown  => [X,     S,        X,   X,    X],
        // A look can contradict whatever was believed: after a crash, after somebody's own umount.
        Event::FoundLive      => [L,     L,        L,   L,    L],
        Event::FoundDead      => [S,     S,        S,   S,    S],
        Event::FoundAbsent    => [A,     A,        A,   A,    A],
        Event::DetachStarts   => [X,     D,        D,   D,    D],
        Event::Detached       => [X,     X,        X,   X,    A],
        Event::DetachBusyLive => [X,     X,        X,   X,    L],
        Event::DetachBusyDead => [X,     X,        X,   X,    S],
        Event::DetachUnknown  => [X,     X,        X,   X,    S],
    }
}

/// The state after an event; `None` if the event cannot happen in that state.
pub(crate) fn next(state: MountState, event: Event) -> Option<MountState> {
    let column = match state {
        MountState::Absent => 0,
        MountState::Attaching => 1,
        MountState::Live => 2,
        MountState::Stale => 3,
        MountState::Detaching => 4,
    };
    row(event).get(column).copied().flatten()
}

/// What an acquire has to do first in a state that was just looked at, when no other operation on the mount is under
/// way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Have it mounted.
    Attach,
    /// Nothing: it is there.
    Use,
    /// Take away what is there (a dead mount, or half of an interrupted operation), then go on.
    TakeDown,
}

/// The healing switch of every acquire.
pub(crate) fn step(state: MountState) -> Step {
    match state {
        MountState::Absent => Step::Attach,
        MountState::Live => Step::Use,
        MountState::Attaching | MountState::Stale | MountState::Detaching => Step::TakeDown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 12] = [
        Event::AttachStarts,
        Event::Attached,
        Event::AttachFailed,
        Event::AttachUnknown,
        Event::FoundLive,
        Event::FoundDead,
        Event::FoundAbsent,
        Event::DetachStarts,
        Event::Detached,
        Event::DetachBusyLive,
        Event::DetachBusyDead,
        Event::DetachUnknown,
    ];

    #[test]
    fn columns_are_in_the_order_of_the_states() {
        for (state, found) in STATES.into_iter().zip(row(Event::FoundLive)) {
            assert_eq!(next(state, Event::FoundLive), found);
        }
        let moved: Vec<_> = STATES.into_iter().filter(|s| next(*s, Event::AttachStarts).is_some()).collect();
        assert_eq!(moved, [MountState::Absent]);
        let detachable: Vec<_> =
            STATES.into_iter().filter(|s| next(*s, Event::DetachStarts).is_some()).collect();
        assert_eq!(detachable, STATES[1..]);
    }

    #[test]
    fn an_operation_under_way_ends_in_every_case() {
        let ends = |state: MountState| EVENTS.into_iter().filter_map(move |event| next(state, event));
        for state in [MountState::Attaching, MountState::Detaching] {
            for end in [MountState::Absent, MountState::Live, MountState::Stale] {
                assert!(ends(state).any(|s| s == end), "{state:?} never ends {end:?}");
            }
        }
    }

    #[test]
    fn healing_reaches_live_from_everywhere() {
        for start in STATES {
            let mut state = start;
            for _ in 0..4 {
                let events: &[Event] = match step(state) {
                    Step::Attach => &[Event::AttachStarts, Event::Attached],
                    Step::Use => &[],
                    Step::TakeDown => &[Event::DetachStarts, Event::Detached],
                };
                for event in events {
                    state = next(state, *event).unwrap();
                }
                if state == MountState::Live {
                    break;
                }
            }
            assert_eq!(state, MountState::Live, "from {start:?}");
        }
    }

    #[test]
    fn nothing_is_mounted_over_what_is_there() {
        for state in [MountState::Live, MountState::Stale, MountState::Detaching, MountState::Attaching] {
            assert_eq!(next(state, Event::AttachStarts), None);
        }
    }
}
