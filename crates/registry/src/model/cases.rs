//! Stories worth playing every time; those that once went wrong come here as the model shrank them.

use super::calls::{Call, Manner, Step};
use super::play;

fn publish(target: usize) -> Call {
    Call::Publish(target, Manner::default())
}

/// Every call, cut off at each of its steps, with a container that uses the mount or without.
#[test]
fn a_daemon_that_dies_at_any_step_of_any_call_comes_back_right() {
    let calls = [
        Call::Mount(0, 1, false),
        Call::Mount(0, 0, false),
        Call::Unmount(0, 0, false),
        publish(0),
        publish(2),
        Call::Unpublish(0, false),
        Call::Remove(0),
        Call::Define(2),
    ];
    for call in calls {
        for at in 1..14 {
            for busy in [false, true] {
                let mut story = vec![Step::Call(Call::Mount(0, 0, false)), Step::Call(publish(0))];
                if busy {
                    story.push(Step::Run(0, 0));
                }
                story.extend([Step::DiesDuring(call, at), Step::Call(call)]);
                play(&story);
            }
        }
    }
}

/// The same where the mount is dead when the call comes, and has to be healed.
#[test]
fn a_daemon_that_dies_while_it_heals_comes_back_right() {
    for call in [Call::Mount(0, 0, false), Call::Mount(0, 0, true), publish(0), Call::Unmount(0, 0, false)] {
        for at in 1..16 {
            play(&[
                Step::Call(Call::Mount(0, 0, false)),
                Step::Call(publish(0)),
                Step::KillWorker(0),
                Step::DiesDuring(call, at),
                Step::DiesDuringStart(at),
                Step::Call(call),
            ]);
        }
    }
}

#[test]
fn a_caller_that_hangs_up_at_any_step_leaves_nothing_new() {
    for call in [Call::Mount(0, 1, false), publish(0), Call::Unmount(0, 0, false), Call::Remove(0)] {
        for at in 1..10 {
            play(&[
                Step::Call(Call::Mount(0, 0, false)),
                Step::HangsUpDuring(call, at),
                Step::Together(vec![call, Call::Unmount(0, 1, false), Call::Mount(0, 1, false)]),
            ]);
        }
    }
}

/// Found by the model: an unmount that fails at the start left the state at stale, and the next request took the mount
/// down without looking, although it lived and a container had it.
#[test]
fn a_mount_that_could_not_be_taken_down_is_looked_at_before_it_is_healed() {
    play(&[
        Step::DetachFails(true),
        Step::DiesDuring(publish(0), 3),
        Step::DetachFails(false),
        Step::Run(0, 2),
        Step::Call(Call::Mount(0, 0, false)),
    ]);
}

/// Kubelet comes back after the journal was lost: what it unpublishes must be free, what it publishes must be there.
#[test]
fn targets_of_a_lost_journal_are_freed_or_taken_over() {
    for dead in [false, true] {
        let mut story = vec![Step::Call(publish(0)), Step::Call(publish(1)), Step::Call(publish(2))];
        if dead {
            story.push(Step::KillWorker(0));
        }
        story.extend([
            Step::LoseJournal,
            Step::Call(Call::Unpublish(0, false)),
            Step::Call(publish(1)),
            Step::Call(publish(1)),
            Step::Sweep(0),
        ]);
        play(&story);
    }
}
