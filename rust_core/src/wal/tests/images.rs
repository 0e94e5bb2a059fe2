//! A million disks as they may be found after the power went: both logs of a session, several
//! lives of the process, and the power going again while a log is recovered.
//!
//! One run of the writers is recorded step by step; each moment of it gives several images. Of each
//! image both logs are recovered and read back, and held against what was appended and what was
//! acknowledged at that moment. Records say in which life they were written, so one of a lost tail
//! is told from its successor. `HFT_FUZZ_CASES` sets how many images are looked at.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::sim_disk::{Draw, Moment, SimDisk, Space, Witness};
use super::support::{manual, time_ns};
use crate::record::{
    BookRecord, CommandRecord, DecisionRecord, HealthRecord, Record, RecordHeader, TimerRecord,
    TradeRecord, peek_header,
};
use crate::wal::manifest::MANIFEST_NAME;
use crate::wal::reader::read_log_on;
use crate::wal::recovery::recover_on;
use crate::wal::sabotage::{self, Sabotage};

use crate::wal::{LogKind, Options, WalError, Writer};

/// Images in the ordinary test run.
const IMAGES: u64 = 1_000_000;
/// Images drawn of one moment at which something is not synced.
const IMAGES_PER_MOMENT: u64 = 8;
/// Small, so that many segments fit into a short run; the format has no smallest size.
const SEGMENT_BYTES: u64 = 2 << 10;
/// Images after which a harness that has not missed a protection is blind.
const CONTROL_IMAGES_MAX: u64 = 400_000;
const LIVES: u64 = 4;
const KINDS: [LogKind; 2] = [LogKind::Market, LogKind::Orders];

fn dir(log: usize) -> &'static Path {
    Path::new(KINDS[log].name())
}

fn options(log: usize, epoch: u32) -> Options {
    Options {
        wal_id: 7 + u32::try_from(log).unwrap(),
        kind: KINDS[log],
        segment_bytes: SEGMENT_BYTES,
        epoch,
        ..manual()
    }
}

/// What was appended to a log, record by record.
#[derive(Debug, Clone, Default)]
struct Truth {
    tape: Vec<u8>,
    ends: Vec<usize>,
    input_seqs: Vec<u64>,
    acked: u64,
}

impl Truth {
    fn push(&mut self, record: &[u8], input_seq: u64) {
        self.tape.extend_from_slice(record);
        self.ends.push(self.tape.len());
        self.input_seqs.push(input_seq);
    }

    fn first(&self, count: u64) -> &[u8] {
        let index = usize::try_from(count).unwrap();
        let end = index.checked_sub(1).map_or(0, |last| self.ends[last]);
        &self.tape[..end]
    }

    fn keep(&mut self, count: u64) {
        let index = usize::try_from(count).unwrap();
        self.tape.truncate(self.first(count).len());
        self.ends.truncate(index);
        self.input_seqs.truncate(index);
    }

    fn input_seq(&self, count: u64) -> Option<u64> {
        let index = usize::try_from(count).unwrap().checked_sub(1)?;
        Some(self.input_seqs[index])
    }

    fn count(&self) -> u64 {
        self.ends.len() as u64
    }
}

/// What is wrong with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// An acknowledged record is not there.
    Lost,
    /// A record is there that was not appended at that place.
    Phantom,
    /// A record is there that was appended elsewhere.
    OutOfOrder,
    /// The log is sound and recovery refuses it.
    Refused,
    /// Recovery reports other facts than the log has.
    WrongFacts,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tally {
    images: u64,
    moments: u64,
    recoveries: u64,
    acked_checked: u64,
    orphans: u64,
    lost: u64,
    phantom: u64,
    out_of_order: u64,
    refused: u64,
    wrong_facts: u64,
    first: Option<String>,
}

impl Tally {
    fn note(&mut self, finding: Finding, text: impl FnOnce() -> String) {
        *match finding {
            Finding::Lost => &mut self.lost,
            Finding::Phantom => &mut self.phantom,
            Finding::OutOfOrder => &mut self.out_of_order,
            Finding::Refused => &mut self.refused,
            Finding::WrongFacts => &mut self.wrong_facts,
        } += 1;
        self.first.get_or_insert_with(text);
    }

    fn add(&mut self, other: Self) {
        self.images += other.images;
        self.moments += other.moments;
        self.recoveries += other.recoveries;
        self.acked_checked += other.acked_checked;
        self.orphans += other.orphans;
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.out_of_order += other.out_of_order;
        self.refused += other.refused;
        self.wrong_facts += other.wrong_facts;
        self.first = self.first.take().or(other.first);
    }

    fn unsafe_findings(&self) -> u64 {
        self.lost + self.phantom + self.out_of_order + self.wrong_facts
    }

    fn render(&self, name: &str) -> String {
        let mut text = String::new();
        write!(
            text,
            "{name}: {} images of {} moments ({} during a recovery), {} acknowledged records \
             checked, {} orders without their cause found; lost {}, phantom {}, out of order {}, \
             refused {}, wrong facts {}",
            self.images,
            self.moments,
            self.recoveries,
            self.acked_checked,
            self.orphans,
            self.lost,
            self.phantom,
            self.out_of_order,
            self.refused,
            self.wrong_facts
        )
        .unwrap();
        text
    }
}

/// Where the harness differs from the ordinary run.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    /// Counts a record as acknowledged when it was appended.
    acks_before_sync: bool,
    /// Every life but the last is killed between a change of names and its sync.
    is_killed_frail: bool,
    /// Reserved space is not zeroed, and an earlier session of the same kind once stood there.
    is_recycled: bool,
}

type Watermark = Box<dyn Fn() -> u64 + Send>;

/// What the witness of a recording asks.
#[derive(Default)]
struct Acks {
    base: [AtomicU64; 2],
    live: [Mutex<Option<Watermark>>; 2],
}

impl Acks {
    fn now(&self) -> [u64; 2] {
        [0, 1].map(|log| {
            let base = self.base[log].load(Ordering::Relaxed);
            let live = self.live[log].lock().unwrap();
            live.as_ref().map_or(base, |live| base.max(live()))
        })
    }
}

/// A moment and what must be true of every image of it.
#[derive(Debug, Clone)]
struct Scene {
    moment: Moment,
    is_recovery: bool,
}

struct World {
    disk: SimDisk,
    truths: [Truth; 2],
    next_input_seq: u64,
    life: u64,
    draw: Draw,
    control: Control,
}

impl World {
    fn new(seed: u64, control: Control) -> Self {
        let mut draw = Draw::new(seed + 1);
        let space = if control.is_recycled {
            Space::Recycled
        } else {
            [Space::Zeroed, Space::Growing][draw.below(2)]
        };
        let mut world = Self {
            disk: SimDisk::with_space(space),
            truths: [Truth::default(), Truth::default()],
            next_input_seq: 1,
            life: 0,
            draw,
            control,
        };
        if control.is_recycled {
            world.leave_an_earlier_session();
        }
        world
    }

    /// Logs with the same sequences and epoch and another identity, deleted again.
    fn leave_an_earlier_session(&mut self) {
        let syncs_often = self.draw.below(4) == 0;
        for log in [0, 1] {
            let earlier = Options {
                wal_id: 99,
                ..options(log, 1)
            };
            let writer = Writer::open_on(Arc::new(self.disk.clone()), dir(log), earlier).unwrap();
            for number in 1..40 {
                let record = record_of(log, number, 99, &mut Draw::new(number));
                writer.append(&record).unwrap();
                // Frames written long before a sync prove nothing: then nothing is refused either.
                if syncs_often && number % 3 == 0 {
                    writer.sync().unwrap();
                }
            }
            writer.seal().unwrap();
        }
        self.disk.forget_names();
    }

    /// One life of the process: opens both logs, works, and leaves them in some state.
    fn live(&mut self) -> (Vec<Scene>, Option<(Finding, String)>) {
        self.life += 1;
        let acks = Arc::new(Acks::default());
        for log in [0, 1] {
            acks.base[log].store(self.truths[log].acked, Ordering::Relaxed);
        }
        let asked = Arc::clone(&acks);
        let witness: Witness = Arc::new(move || asked.now());
        self.disk.record(witness);
        let epoch = u32::try_from(self.life).unwrap();
        let mut writers = Vec::new();
        let mut finding = None;
        for log in [0, 1] {
            let disk = Arc::new(self.disk.clone());
            match Writer::open_on(disk, dir(log), options(log, epoch)) {
                Ok(writer) => {
                    let count = writer.durable_seq();
                    let truth = &mut self.truths[log];
                    let text = || format!("{count} records when opened again");
                    if count < truth.acked {
                        finding = Some((Finding::Lost, text()));
                    } else if count > truth.count() {
                        finding = Some((Finding::Phantom, text()));
                    }
                    truth.keep(count.min(truth.count()));
                    // Read back as recovered: it must never be lost from now on.
                    truth.acked = count;
                    acks.base[log].store(count, Ordering::Relaxed);
                    if !self.control.acks_before_sync {
                        *acks.live[log].lock().unwrap() = Some(Box::new(writer.watermark()));
                    }
                    writers.push(writer);
                }
                Err(error) => {
                    finding = Some((Finding::Refused, error.to_string()));
                }
            }
        }
        let opened = self.disk.steps();
        if finding.is_none() {
            self.work(&writers, &acks);
        }
        for log in [0, 1] {
            self.truths[log].acked = acks.now()[log];
        }
        let is_sealed = self.draw.below(3) == 0;
        for writer in writers {
            if is_sealed && finding.is_none() {
                writer.seal().unwrap();
            } else {
                drop(writer);
            }
        }
        let scenes = self.disk.moments().into_iter().enumerate();
        let scenes = scenes.map(|(index, moment)| Scene {
            moment,
            is_recovery: index < opened && self.life > 1,
        });
        (scenes.collect(), finding)
    }

    fn work(&mut self, writers: &[Writer], acks: &Acks) {
        let acts = 3 + self.draw.below(7);
        for _ in 0..acts {
            match self.draw.below(10) {
                0 => writers[0].sync().map(drop).unwrap(),
                1 => writers[self.draw.below(2)].rotate().unwrap(),
                2 | 3 => {
                    for _ in 0..=self.draw.below(3) {
                        self.append(writers, acks, 0);
                    }
                }
                4 => {
                    for _ in 0..4 + self.draw.below(16) {
                        self.append(writers, acks, 0);
                    }
                }
                5..=7 => {
                    // A market record and the decision it caused, which is durable first.
                    self.append(writers, acks, 0);
                    self.append(writers, acks, 1);
                    writers[1].sync().map(drop).unwrap();
                }
                _ => {
                    for _ in 0..=self.draw.below(4) {
                        self.append(writers, acks, 1);
                    }
                    if self.draw.below(3) > 0 {
                        writers[1].sync().map(drop).unwrap();
                    }
                }
            }
        }
    }

    fn append(&mut self, writers: &[Writer], acks: &Acks, log: usize) {
        let input_seq = self.next_input_seq;
        let record = record_of(log, input_seq, self.life, &mut self.draw);
        let header = peek_header(&record).unwrap();
        self.next_input_seq = header.input_seq + 1;
        self.truths[log].push(&record, header.input_seq);
        let seq = writers[log].append(&record).unwrap();
        assert_eq!(seq, self.truths[log].count());
        if self.control.acks_before_sync {
            acks.base[log].store(seq, Ordering::Relaxed);
        }
    }

    /// Both logs of an image, recovered and read back.
    fn check(&self, image: &SimDisk, acked: [u64; 2], tally: &mut Tally) {
        tally.images += 1;
        let mut lasts = [None; 2];
        let mut counts = [0; 2];
        for log in [0, 1] {
            tally.acked_checked += acked[log];
            match self.check_log(image, log, acked[log]) {
                Ok((count, last_input_seq)) => (counts[log], lasts[log]) = (count, last_input_seq),
                Err((finding, text)) => {
                    return tally.note(finding, || format!("life {}: {text}", self.life));
                }
            }
        }
        // What both logs say is enough to name every decision that outlived its cause.
        let orders = &self.truths[1].input_seqs[..usize::try_from(counts[1]).unwrap()];
        let market = &self.truths[0].input_seqs;
        let kept = usize::try_from(counts[0]).unwrap();
        let by_facts = orders.iter().filter(|seq| Some(**seq) > lasts[0]);
        let by_facts = by_facts.filter(|seq| market.contains(seq)).count();
        let without_cause = orders.iter().filter(|seq| market[kept..].contains(seq));
        if by_facts != without_cause.count() {
            tally.note(Finding::WrongFacts, || {
                "orders without cause differ".to_owned()
            });
        }
        tally.orphans += by_facts as u64;
    }

    fn check_log(
        &self,
        image: &SimDisk,
        log: usize,
        acked: u64,
    ) -> Result<(u64, Option<u64>), (Finding, String)> {
        let name = KINDS[log].name();
        let refused = |error: WalError| (Finding::Refused, format!("{name}: {error}"));
        let (report, _) = recover_on(image, dir(log)).map_err(refused)?;
        let read = read_log_on(image, dir(log)).map_err(refused)?;
        // A session knows which log it had; the first segment of another is refused by its writer.
        let wal_id = options(log, 1).wal_id;
        if read.segments.iter().any(|info| info.wal_id != wal_id) {
            return Err((Finding::Refused, format!("{name}: another log's segment")));
        }
        let truth = &self.truths[log];
        if !truth.tape.starts_with(&read.tape) {
            return Err(self.foreign(log, &read.tape));
        }
        let count = report.last_seq.unwrap_or(0);
        let text = || format!("{name}: {count} records, {acked} acknowledged");
        if count < acked {
            return Err((Finding::Lost, text()));
        }
        if count > truth.count() || truth.first(count) != read.tape {
            return Err((Finding::WrongFacts, text()));
        }
        if report.last_input_seq != truth.input_seq(count) || read.torn.is_some() {
            return Err((Finding::WrongFacts, text()));
        }
        Ok((count, report.last_input_seq))
    }

    /// What the first record is that should not be there.
    fn foreign(&self, log: usize, tape: &[u8]) -> (Finding, String) {
        let truth = &self.truths[log];
        let start = (0..truth.count())
            .map(|count| truth.first(count).len())
            .take_while(|end| tape.get(..*end) == truth.tape.get(..*end))
            .last()
            .unwrap_or(0);
        let record = tape.get(start..).unwrap_or_default();
        let end = peek_header(record).map_or(0, |header| usize::from(header.record_bytes));
        let record = record.get(..end).unwrap_or(record);
        let is_ours = truth.tape.windows(end.max(1)).any(|part| part == record);
        let text = format!("{} record at byte {start} of the tape", KINDS[log].name());
        let finding = if is_ours {
            Finding::OutOfOrder
        } else {
            Finding::Phantom
        };
        (finding, text)
    }
}

/// A record that says when and in which life it was written. In the orders log it is a decision on
/// the input before, or an input of its own.
fn record_of(log: usize, input_seq: u64, life: u64, draw: &mut Draw) -> Vec<u8> {
    fn with<R: Record>(mut record: R, change: impl FnOnce(&mut R)) -> Vec<u8> {
        change(&mut record);
        record.as_bytes().to_vec()
    }
    let time = time_ns(input_seq);
    let price = i64::try_from(life * 1_000_000 + input_seq).unwrap();
    let head = |header: &mut RecordHeader, input_seq| {
        header.input_seq = input_seq;
        header.sequence_time_ns = time;
        header.instrument_id = u32::try_from(life).unwrap();
    };
    match (log, draw.below(8)) {
        (0, 0) => with(BookRecord::empty(), |book| {
            head(&mut book.header, input_seq)
        }),
        (0, 1) => with(TimerRecord::empty(), |timer| {
            head(&mut timer.header, input_seq);
        }),
        (0, _) => with(TradeRecord::empty(), |trade| {
            head(&mut trade.header, input_seq);
            trade.price = price;
        }),
        (_, 0) => with(CommandRecord::empty(), |command| {
            head(&mut command.header, input_seq);
        }),
        (_, 1) => with(HealthRecord::empty(), |health| {
            head(&mut health.header, input_seq);
        }),
        _ => with(DecisionRecord::empty(), |decision| {
            head(&mut decision.header, input_seq.saturating_sub(1).max(1));
            decision.price = price;
        }),
    }
}

/// Several lives of one session; every moment of each gives images.
fn history(seed: u64, control: Control) -> Tally {
    let mut world = World::new(seed, control);
    let mut tally = Tally::default();
    for _ in 0..LIVES {
        let (scenes, finding) = world.live();
        if let Some((finding, text)) = finding {
            tally.note(finding, || text);
            return tally;
        }
        for scene in &scenes {
            tally.moments += 1;
            let count = if scene.moment.is_synced() {
                1
            } else {
                IMAGES_PER_MOMENT
            };
            for _ in 0..count {
                let image = scene.moment.image(&mut world.draw);
                tally.recoveries += u64::from(scene.is_recovery);
                world.check(&image, scene.moment.acked, &mut tally);
            }
        }
        // The next life finds the power gone at some moment, or the process killed there; often
        // between a change of names or of the manifest and its sync, for such moments are few.
        let mut moments: Vec<&Moment> = scenes.iter().map(|scene| &scene.moment).collect();
        let is_frail = |moment: &Moment| moment.has_unsynced(MANIFEST_NAME);
        let wants_frail = world.draw.below(2) == 0 || control.is_killed_frail;
        if wants_frail && moments.iter().any(|moment| is_frail(moment)) {
            moments.retain(|moment| is_frail(moment));
        }
        let next = moments[world.draw.below(moments.len())];
        let is_cut = world.draw.below(2) == 0 && !control.is_killed_frail;
        world.disk = if is_cut {
            next.image(&mut world.draw)
        } else {
            next.killed()
        };
        for log in [0, 1] {
            world.truths[log].acked = next.acked[log];
        }
    }
    tally
}

fn cases(images: u64) -> u64 {
    std::env::var("HFT_FUZZ_CASES").map_or(images, |text| text.parse().unwrap())
}

/// Histories until `images` were looked at, on two threads; the result does not depend on timing.
fn many(images: u64, control: Control) -> Tally {
    const THREADS: u64 = 2;
    std::thread::scope(|scope| {
        let part = |thread: u64| {
            scope.spawn(move || {
                let mut tally = Tally::default();
                let mut seed = thread;
                while tally.images < images / THREADS {
                    tally.add(history(seed, control));
                    seed += THREADS;
                }
                tally
            })
        };
        let mut tally = Tally::default();
        for part in (0..THREADS).map(part).collect::<Vec<_>>() {
            tally.add(part.join().unwrap());
        }
        tally
    })
}

/// The same on this thread, which may have a protection taken away: until it is caught.
fn until(is_caught: fn(&Tally) -> bool, control: Control) -> Tally {
    let mut tally = Tally::default();
    let mut seed = 0;
    while tally.images < CONTROL_IMAGES_MAX && !is_caught(&tally) {
        tally.add(history(seed, control));
        seed += 1;
    }
    tally
}

fn say(text: &str) {
    // Not `eprintln`: a test that passes would not show it.
    writeln!(std::io::stderr(), "{text}").unwrap();
}

#[test]
fn a_million_power_cuts_lose_no_acknowledged_record_and_invent_none() {
    let wanted = cases(IMAGES);
    let tally = many(wanted, Control::default());
    say(&tally.render("power cuts"));
    assert!(tally.images >= wanted);
    assert!(tally.acked_checked > tally.images);
    assert!(tally.recoveries > wanted / 20, "{tally:?}");
    assert!(tally.orphans > wanted / 100, "{tally:?}");
    assert_eq!(
        (tally.unsafe_findings(), tally.refused),
        (0, 0),
        "{tally:?}"
    );
}

/// A file system that shows an earlier session's bytes in reserved space breaks its promise. That
/// may cost a start (a whole frame of the earlier session looks like proof of damage), no record.
#[test]
fn stale_bytes_of_an_earlier_session_are_never_read_as_records() {
    let recycled = Control {
        is_recycled: true,
        ..Control::default()
    };
    let tally = many(cases(IMAGES) / 50, recycled);
    say(&tally.render("recycled space"));
    assert_eq!(tally.unsafe_findings(), 0, "{tally:?}");
}

/// Each protection taken away is missed by the same harness.
#[test]
fn every_protection_taken_away_is_caught_by_the_same_images() {
    let sound = Control::default();
    let acks_early = Control {
        acks_before_sync: true,
        ..sound
    };
    let recycled = Control {
        is_recycled: true,
        ..sound
    };
    let frail = Control {
        is_killed_frail: true,
        ..sound
    };
    let is_lost: fn(&Tally) -> bool = |tally| tally.lost > 0;
    let is_phantom: fn(&Tally) -> bool = |tally| tally.phantom > 0;
    let is_refused: fn(&Tally) -> bool = |tally| tally.refused > 0;
    let tally = until(is_lost, acks_early);
    say(&tally.render("control: acknowledged before the sync"));
    assert!(is_lost(&tally), "{tally:?}");
    for (sabotage, control, is_caught) in [
        (Sabotage::NoChecksum, sound, is_phantom),
        (Sabotage::NoChainSeed, recycled, is_phantom),
        (Sabotage::RefuseAnyLaterFrame, sound, is_refused),
        (Sabotage::NoFolderSync, frail, is_refused),
        (Sabotage::NoManifestSync, frail, is_refused),
    ] {
        let tally = sabotage::with(sabotage, || until(is_caught, control));
        say(&tally.render(&format!("control: {sabotage:?}")));
        assert!(is_caught(&tally), "{sabotage:?}: {tally:?}");
    }
}
