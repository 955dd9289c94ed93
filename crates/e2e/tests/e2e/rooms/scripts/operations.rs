//! Random operations on a waiting room.

use proptest::prelude::*;
use tutti_model::{Mode, RoomSettings};
use tutti_queue::rooms::TicketAction;

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Lets time pass, in milliseconds.
    Wait(u64),
    Join(u8),
    Act(TicketAction, usize),
    Remove(usize),
    Tick,
    Mode(Mode),
    Put(RoomSettings),
    /// An edge reports present tickets: the edge, whether these are all it has, and those that came and went.
    Present(usize, bool, Vec<usize>, Vec<usize>),
}

pub(super) fn settings() -> impl Strategy<Value = RoomSettings> {
    (1u64..6, prop::sample::select(vec![0.5, 2.0, 10.0]), 1u64..4, 2u64..6, 2u64..20).prop_map(
        |(max_active, admit_per_second, claim_seconds, session_seconds, grace_seconds)| RoomSettings {
            max_active,
            admit_per_second,
            claim_seconds,
            session_seconds,
            pass_seconds: 60,
            grace_seconds,
            ..RoomSettings::default()
        },
    )
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let ticket = 0usize..60;
    let tickets = || prop::collection::vec(0usize..60, 0..6);
    let act = prop::sample::select(vec![
        TicketAction::Get,
        TicketAction::Claim,
        TicketAction::Renew,
        TicketAction::Leave,
    ]);
    let mode = prop::sample::select(vec![Mode::Open, Mode::Open, Mode::Paused, Mode::Draining]);
    prop_oneof![
        4 => (0u64..3000).prop_map(Op::Wait),
        8 => (0u8..60).prop_map(Op::Join),
        5 => (act, ticket.clone()).prop_map(|(act, n)| Op::Act(act, n)),
        1 => ticket.prop_map(Op::Remove),
        6 => Just(Op::Tick),
        1 => mode.prop_map(Op::Mode),
        1 => settings().prop_map(Op::Put),
        3 => (0usize..2, any::<bool>(), tickets(), tickets())
            .prop_map(|(edge, all, opened, closed)| Op::Present(edge, all, opened, closed)),
    ]
}
