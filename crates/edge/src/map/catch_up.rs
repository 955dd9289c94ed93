//! Decides what one stream writes next, from what its client was shown to the newest step. It is pure and goes one
//! write at a time.

use std::sync::Arc;

use tokio::time::Instant;
use tutti_feed::Cursor;

use crate::following::cursor_wait::CursorWait;
use crate::following::next_write::NextWrite;
use crate::following::reset::{INCOMPLETE, write_reset};
use crate::following::status::Status;
use crate::map::area::Area;
use crate::map::replay::Replay;
use crate::map::shown::{Shown, View};
use crate::map::tick::Tick;
use crate::map::tile_updates::write_cells;
use crate::map::view::Resume;
use crate::metrics::Metrics;
use tutti_model::events::ResetReason;
use tutti_sse::events::Events;

/// The progress of one stream from what its client was shown to the newest step.
pub(crate) struct CatchUp {
    shown: Shown,
    /// The status that the client received last.
    status: Option<Status>,
    view: View,
    /// The replay in progress.
    run: Option<ReplayRun>,
    /// The wait for a cursor that this edge has not reached yet.
    cursor_wait: CursorWait,
}

/// One replay, from its beginning to the step that it leads to.
struct ReplayRun {
    walk: Walk,
    /// The cursor from which the client resumes. `None` if the client is shown everything.
    from: Option<Arc<Cursor>>,
    /// The cursor of the step that the run leads to.
    cursor: Arc<Cursor>,
    /// The text of that cursor.
    id: Arc<str>,
    /// The generation in which the run began.
    generation: u64,
}

/// The content of a replay.
enum Walk {
    /// Devices, chunk by chunk.
    Devices(Replay),
    /// The cells of an area. They are few, and are written at once.
    Cells(Area),
}

impl CatchUp {
    /// Creates the progress of a stream whose client was shown `shown` and received `status` last.
    pub(crate) fn new(shown: Shown, status: Option<Status>, view: View) -> Self {
        Self { shown, status, view, run: None, cursor_wait: CursorWait::default() }
    }

    /// Returns what the stream does next. `tick` is the newest step, or `None` if there was none yet.
    pub(crate) fn next(&mut self, tick: Option<&Tick>, now: Instant, metrics: &Metrics) -> NextWrite {
        let Some(tick) = tick else {
            let (until, events) = self.cursor_wait.wait(now, &mut self.status);
            return if events.is_empty() { NextWrite::Wait(until) } else { NextWrite::Write(events) };
        };
        if self.run.as_ref().is_some_and(|run| run.generation != tick.generation) {
            self.run = None;
            self.shown = Shown::Lost(tick.reset_reason);
        }
        let from = self.run.as_ref().and_then(|run| run.from.as_ref());
        if from.is_some_and(|from| tick.view.forgot_since(from)) {
            self.run = None;
            self.shown = Shown::Lost(ResetReason::TooOld);
        }
        let mut begun = Events::default();
        let mut is_first = false;
        if self.run.is_none() {
            is_first = matches!(self.shown, Shown::Nothing);
            match self.begin(tick, now, &mut begun, metrics) {
                Begin::ReplayRun(run) => self.run = Some(run),
                Begin::There => {}
                Begin::Wait(until) if begun.is_empty() => return NextWrite::Wait(until),
                Begin::Wait(_) => return NextWrite::Write(begun),
            }
        }
        let mut events = Events::default();
        if self.status.replace(tick.status) != Some(tick.status) {
            tick.status.write(&mut events);
        }
        if is_first {
            events.id(INCOMPLETE);
        }
        events.append(&begun);
        if let Some(run) = &mut self.run {
            let is_done = match &mut run.walk {
                Walk::Devices(replay) => {
                    events.append(&replay.next_chunk(&tick.view));
                    replay.is_done()
                }
                Walk::Cells(area) => {
                    // The cells are those of the newest step, which may be later than the step at which the run
                    // began.
                    (run.cursor, run.id) = (tick.cursor.clone(), tick.id.clone());
                    write_cells(tick.cells(area.zoom()), *area, &mut events);
                    true
                }
            };
            if is_done {
                events.id(&self.view.id(&run.id));
                self.shown = Shown::UpTo(run.cursor.clone(), Some(run.generation));
                self.run = None;
            }
        } else if events.is_empty() {
            return NextWrite::Arrived;
        }
        NextWrite::Write(events)
    }

    /// Whether the next write looks at a few devices, not at the whole map.
    pub(crate) fn is_short(&self, tick: Option<&Tick>) -> bool {
        if let Some(ReplayRun { walk: Walk::Devices(replay), .. }) = &self.run {
            return replay.is_short();
        }
        let Some(tick) = tick else { return true };
        match self.view {
            // Cells are counted once for all clients.
            View::Clusters(_) => true,
            _ if self.shown.is_all_of(tick) => true,
            View::World => false,
            View::Area(area) => {
                let from = match &self.shown {
                    Shown::UpTo(cursor, generation) if generation.is_none_or(|g| g == tick.generation) => {
                        tick.view.resume(cursor)
                    }
                    _ => Resume::Unknown,
                };
                let from = if let Resume::From(from) = from { Some(from) } else { None };
                tick.view.is_few(area, from.as_deref())
            }
        }
    }

    /// Whether no replay is in progress.
    pub(crate) fn is_between_passes(&self) -> bool {
        self.run.is_none()
    }

    /// Whether the client was shown everything of a step, including its status.
    pub(crate) fn is_at(&self, tick: &Tick) -> bool {
        self.run.is_none() && self.shown.is_all_of(tick) && self.status == Some(tick.status)
    }

    /// Begins a replay from what the client was shown to a step, unless the client is there or must wait. Appends a
    /// reset, or the status while the stream waits, to `events`.
    fn begin(&mut self, tick: &Tick, now: Instant, events: &mut Events, metrics: &Metrics) -> Begin {
        if self.shown.is_all_of(tick) {
            return Begin::There;
        }
        let mut since = None;
        // `None` shows the client everything.
        let from = match &self.shown {
            Shown::Nothing => None,
            // What the cells were is not remembered.
            Shown::UpTo(..) if matches!(self.view, View::Clusters(_)) => {
                reset(ResetReason::Clusters, events, metrics)
            }
            Shown::UpTo(_, Some(generation)) if *generation != tick.generation => {
                reset(tick.reset_reason, events, metrics)
            }
            Shown::UpTo(cursor, _) => match tick.view.resume(cursor) {
                Resume::From(from) => {
                    since = Some(cursor.clone());
                    Some(from)
                }
                Resume::TooOld => reset(ResetReason::TooOld, events, metrics),
                Resume::Unknown if self.cursor_wait.is_over(tick.polls, tick.view.reaches(&tick.heads)) => {
                    reset(ResetReason::UnknownId, events, metrics)
                }
                Resume::Unknown => {
                    let (until, waiting) = self.cursor_wait.wait(now, &mut self.status);
                    events.append(&waiting);
                    return Begin::Wait(until);
                }
            },
            Shown::Lost(reason) => {
                let reason = *reason;
                reset(reason, events, metrics)
            }
        };
        metrics.replays.inc();
        let walk = match self.view {
            View::World | View::Area(_) => Walk::Devices(Replay::new(from, self.view.area(), &tick.view)),
            View::Clusters(area) => Walk::Cells(area),
        };
        Begin::ReplayRun(ReplayRun {
            walk,
            from: since,
            cursor: tick.cursor.clone(),
            id: tick.id.clone(),
            generation: tick.generation,
        })
    }
}

/// Appends a reset, and returns the numbers to replay from: none, so that the client is shown everything.
fn reset(reason: ResetReason, events: &mut Events, metrics: &Metrics) -> Option<Vec<u64>> {
    write_reset(reason, events, metrics);
    None
}

/// How a stream gets to a step.
enum Begin {
    /// By a replay.
    ReplayRun(ReplayRun),
    /// The client was shown everything of the step already.
    There,
    /// The stream waits for a later step, at most until this time.
    Wait(Instant),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::state::MapState;
    use crate::map::state::tests::{fix, map, record, removal};
    use crate::map::tick::Step;
    use prometheus_client::registry::Registry;
    use tutti_feed::Position;

    const T0: u64 = 1_700_000_000_000_000;
    const S: u64 = 1_000_000;

    struct Edge {
        map: MapState,
        metrics: Metrics,
        generation: u64,
        polls: u64,
        no: u64,
        seq: u64,
    }

    impl Edge {
        fn new() -> Self {
            let metrics = Metrics::new(&mut Registry::default());
            Self { map: map(1), metrics, generation: 0, polls: 0, no: 0, seq: 0 }
        }

        fn apply(&mut self, time_us: u64, changes: Vec<tutti_model::Change>) {
            self.seq += 1;
            self.map.apply(0, &record(self.seq, time_us, changes));
        }

        fn tick(&mut self) -> Tick {
            self.no += 1;
            let step = Step {
                generation: self.generation,
                reset_reason: ResetReason::Gap,
                heads: self.map.view().cursor().0,
                polls: self.polls,
                ..Step::numbered(self.no)
            };
            Tick::new(&mut self.map, step)
        }

        fn write(&self, approach: &mut CatchUp, tick: &Tick) -> String {
            match approach.next(Some(tick), Instant::now(), &self.metrics) {
                NextWrite::Write(events) => events.into_text(),
                NextWrite::Wait(_) => "wait".to_owned(),
                NextWrite::Arrived => "arrived".to_owned(),
            }
        }
    }

    fn ms(time_us: u64) -> i64 {
        (time_us / 1000) as i64
    }

    /// Returns fixes that fill more than one chunk.
    fn many(time_us: u64) -> Vec<tutti_model::Change> {
        (0..400).map(|i| fix(&format!("m{i:03}"), ms(time_us))).collect()
    }

    #[test]
    fn a_new_client_is_incomplete_until_the_last_chunk_and_then_at_the_step() {
        let mut edge = Edge::new();
        edge.apply(T0, many(T0));
        let tick = edge.tick();
        let mut approach = CatchUp::new(Shown::Nothing, None, View::World);
        let first = edge.write(&mut approach, &tick);
        assert!(first.starts_with("event: status\ndata: {\"state\":\"live\"}\nid: 0\n\n"), "{first}");
        assert!(first.contains("m000") && !first.contains(&*tick.id));
        let mut last = String::new();
        loop {
            match edge.write(&mut approach, &tick) {
                arrived if arrived == "arrived" => break,
                more => last = more,
            }
        }
        assert!(last.ends_with(&format!("id: {}\n\n", tick.id)) && last.contains("m399"));
    }

    #[test]
    fn a_walk_that_outlasts_the_tombstones_ends_in_a_reset() {
        let mut edge = Edge::new();
        edge.apply(T0, many(T0));
        let before = edge.tick();
        edge.apply(T0 + S, many(T0 + S));
        let tick = edge.tick();
        let mut approach = CatchUp::new(Shown::UpTo(before.cursor, Some(0)), Some(Status::Live), View::World);
        assert!(!edge.write(&mut approach, &tick).contains("reset"));
        // While the socket is full, a device ahead of the walk is removed, and then its tombstone.
        edge.apply(T0 + 2 * S, vec![removal("m399", ms(T0 + 2 * S))]);
        edge.apply(T0 + 123 * S, vec![]);
        let tick = edge.tick();
        let text = edge.write(&mut approach, &tick);
        assert!(text.starts_with("event: reset\ndata: {\"reason\":\"too_old\"}\nid: 0\n"), "{text}");
    }

    #[test]
    fn a_reset_in_the_midst_of_a_walk_begins_it_anew() {
        let mut edge = Edge::new();
        edge.apply(T0, many(T0));
        let tick = edge.tick();
        let mut approach = CatchUp::new(Shown::Nothing, None, View::World);
        edge.write(&mut approach, &tick);
        edge.generation += 1;
        edge.apply(T0 + 1, vec![]);
        let tick = edge.tick();
        let text = edge.write(&mut approach, &tick);
        assert!(text.starts_with("event: reset\ndata: {\"reason\":\"gap\"}\nid: 0\n"), "{text}");
        assert!(text.contains("m000"));
    }

    #[test]
    fn heads_asked_for_before_the_first_step_say_nothing_of_a_cursor_that_is_ahead() {
        let mut edge = Edge::new();
        edge.apply(T0, vec![fix("a", ms(T0))]);
        let ahead = Cursor(vec![Some(Position { epoch: 1, seq: 2, time_us: T0 + S })]);
        let mut early = CatchUp::new(Shown::UpTo(Arc::new(ahead), None), None, View::World);
        assert!(matches!(early.next(None, Instant::now(), &edge.metrics), NextWrite::Wait(_)));
        edge.polls = 9;
        let tick = edge.tick();
        assert_eq!(edge.write(&mut early, &tick), "wait");
        edge.polls = 11;
        let tick = edge.tick();
        assert!(edge.write(&mut early, &tick).contains("unknown_id"));
    }

    #[test]
    fn a_cursor_that_is_ahead_is_waited_for_until_redis_itself_is_known_to_be_behind() {
        let mut edge = Edge::new();
        edge.apply(T0, vec![fix("a", ms(T0))]);
        let ahead = Cursor(vec![Some(Position { epoch: 1, seq: 2, time_us: T0 + S })]);
        let mut patient = CatchUp::new(Shown::UpTo(Arc::new(ahead.clone()), None), None, View::World);
        let mut hopeless = CatchUp::new(Shown::UpTo(Arc::new(ahead), None), None, View::World);
        for polls in 0..2 {
            edge.polls = polls;
            let tick = edge.tick();
            assert_eq!(edge.write(&mut patient, &tick), "wait");
            assert_eq!(edge.write(&mut hopeless, &tick), "wait");
        }
        edge.polls = 2;
        let tick = edge.tick();
        assert!(edge.write(&mut hopeless, &tick).contains("unknown_id"));
        edge.apply(T0 + S, vec![fix("b", ms(T0 + S))]);
        edge.apply(T0 + 2 * S, vec![fix("c", ms(T0 + 2 * S))]);
        let tick = edge.tick();
        let text = edge.write(&mut patient, &tick);
        assert!(!text.contains("reset") && !text.contains("\"b\"") && text.contains("\"c\""), "{text}");
    }
}
