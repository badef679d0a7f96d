//! The last-known-good configuration survives power cuts: what a gateway asks of its disk, and in
//! which order, is seen from outside, and then cut at every point.

mod disk;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;

use sallyport_gateway::last_known_good::LastKnownGood;
use sallyport_testkit::{Deadline, Echo, Program, eventually, foreign};
use serde_json::json;

use crate::lab::{Control, Gateway, soon};
use disk::{Disk, Remains};
use trace::{CALLS, Call, Step};

const NEWEST: &str = "last_known_good";

/// What a gateway did, in the order in which it was over.
struct Story {
    prefix: String,
    control_port: u16,
    steps: Vec<Step>,
}

#[test]
fn what_a_gateway_acknowledges_is_on_its_disk_whenever_the_power_goes() {
    let Some(strace) = foreign("strace", "Debian package strace") else {
        return;
    };
    let story = told(&strace);
    story.files_are_synced_before_they_get_their_names();
    story.names_are_synced_before_anything_is_acknowledged();
    story.changes_are_synced_before_they_are_acknowledged();
    story.what_was_acknowledged_survives_every_cut();
}

/// Runs a gateway under strace: its first configuration, changes, a fold, and one more change.
fn told(strace: &Path) -> Story {
    let echo = Echo::start();
    let control = Control::start();
    control.route_to("first", echo.port());
    let dir = tempfile::tempdir().unwrap();
    let written = dir.path().join("strace.txt");
    // -D: the gateway is the child, so that it is what is killed
    let under = Program::new(strace)
        .args(["-D", "-f", "-yy", "-xx", "-s", "4000000", "-e", CALLS, "-o"])
        .arg(&written);
    let mut gateway = Gateway::start_under(under, &control, dir);
    gateway.wait_for("/first", 200, slowly());
    control.wait_in_sync(1);
    control.route_to("second", echo.port());
    gateway.wait_for("/second", 200, slowly());
    control.wait_in_sync(1);
    // enough for the file of changes to be folded into a new configuration
    let folded = gateway.state("last_known_good.previous.changes");
    let plugin = "plugins/00000000-0000-4000-8000-000000000001";
    for at in 0..4_u32 {
        let config = json!({"status_code": 403, "body": noise(at, 280_000)});
        let body = json!({"name": "request-termination", "enabled": false, "config": config});
        control.put(plugin, &body);
        control.wait_in_sync(1);
    }
    eventually("the changes are folded", soon(), || folded.exists());
    control.route_to("third", echo.port());
    gateway.wait_for("/third", 200, slowly());
    control.wait_in_sync(1);
    let prefix = gateway.state("");
    let prefix = prefix.to_str().unwrap().trim_end_matches('/').to_owned();
    gateway.program.kill9();
    let text = || std::fs::read_to_string(&written).unwrap_or_default();
    eventually("strace is done", soon(), || {
        text().contains("+++ killed by SIGKILL +++")
    });
    let steps = trace::read(&text());
    let control_port = control.port;
    Story {
        prefix,
        control_port,
        steps,
    }
}

/// A traced program is slower.
fn slowly() -> Deadline {
    Deadline::secs(60)
}

/// Text that cannot be compressed much, always the same.
fn noise(seed: u32, length: usize) -> String {
    let mut state = u64::from(seed) + 1;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
                [(state >> 58) as usize],
        )
    };
    (0..length).map(letter).collect()
}

impl Story {
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// The steps that are about the last-known-good files or their directory.
    fn on_disk(&self) -> impl Iterator<Item = &Step> {
        let disk = Disk::new(&self.prefix);
        self.steps.iter().filter(move |step| match &step.call {
            Call::Directory(_) | Call::Send(_) | Call::Receive(_) => false,
            Call::Create(path)
            | Call::Write(path, _)
            | Call::Truncate(path, _)
            | Call::Sync(path)
            | Call::Rename(path, _)
            | Call::Link(path, _)
            | Call::Unlink(path) => disk.holds(path, NEWEST),
        })
    }

    /// When the gateway told its control plane something after a line.
    fn told_after(&self, line: usize) -> usize {
        let sends = self
            .steps
            .iter()
            .filter(|it| it.call == Call::Send(self.control_port));
        let next = sends.map(|it| it.begin).find(|begin| *begin > line);
        next.unwrap_or_else(|| panic!("nothing was acknowledged after line {line}"))
    }

    /// write-new → fsync → rename, and what was there before is kept by another name first.
    fn files_are_synced_before_they_get_their_names(&self) {
        let (new, newest) = (self.path("last_known_good.new"), self.path(NEWEST));
        let steps: Vec<&Step> = self.on_disk().collect();
        let mut replaced = 0;
        for (at, step) in steps.iter().enumerate() {
            match &step.call {
                Call::Rename(from, to) if *to == newest => {
                    assert_eq!(*from, new, "line {}", step.begin);
                    let before = &steps[..at];
                    let about_new = before.iter().rev().filter(|it| match &it.call {
                        Call::Create(path) | Call::Write(path, _) | Call::Sync(path) => {
                            *path == new
                        }
                        _ => false,
                    });
                    let calls: Vec<&Call> = about_new.map(|it| &it.call).collect();
                    // from the last one back
                    assert_eq!(*calls[0], Call::Sync(new.clone()), "line {}", step.begin);
                    assert!(matches!(calls[1], Call::Write(..)), "{:?}", calls[1]);
                    if replaced > 0 {
                        let kept = Call::Rename(
                            self.path("last_known_good.kept"),
                            self.path("last_known_good.previous"),
                        );
                        assert!(before.iter().any(|it| it.call == kept), "nothing was kept");
                    }
                    replaced += 1;
                }
                Call::Write(path, _) | Call::Truncate(path, _) | Call::Unlink(path) => {
                    assert_ne!(*path, newest, "line {}: it is never touched", step.begin);
                }
                _ => {}
            }
        }
        assert!(replaced >= 2, "the first and the fold: {replaced}");
    }

    /// rename → fsync of the directory → acknowledgement.
    fn names_are_synced_before_anything_is_acknowledged(&self) {
        let newest = self.path(NEWEST);
        let steps: Vec<&Step> = self.on_disk().collect();
        for (at, step) in steps.iter().enumerate() {
            if matches!(&step.call, Call::Rename(_, to) if *to == newest) {
                let after = &steps[at + 1..];
                let synced = after
                    .iter()
                    .find(|it| it.call == Call::Sync(self.prefix.clone()));
                let synced = synced.expect("the directory is synced");
                assert!(
                    synced.end < self.told_after(step.end),
                    "line {}",
                    step.begin
                );
            }
        }
        // the prefix was new, and so was its name
        let (above, _) = self.prefix.rsplit_once('/').unwrap();
        let made = Call::Directory(self.prefix.clone());
        let made = self
            .steps
            .iter()
            .find(|it| it.call == made)
            .expect("it was new");
        let synced = Call::Sync(above.to_owned());
        let synced = self
            .steps
            .iter()
            .find(|it| it.call == synced)
            .expect("its name is synced");
        assert!(made.end < synced.begin);
        let first = steps
            .iter()
            .find(|it| matches!(&it.call, Call::Rename(_, to) if *to == newest));
        assert!(synced.end < self.told_after(first.unwrap().end));
    }

    /// append → fdatasync → acknowledgement.
    fn changes_are_synced_before_they_are_acknowledged(&self) {
        let changes = self.path("last_known_good.changes");
        let steps: Vec<&Step> = self.on_disk().collect();
        let mut records = 0;
        for (at, step) in steps.iter().enumerate() {
            let Call::Write(path, bytes) = &step.call else {
                continue;
            };
            // a head of 12 bytes is no record
            if *path != changes || bytes.len() <= 12 {
                continue;
            }
            let synced = Call::Sync(changes.clone());
            let synced = steps[at + 1..].iter().find(|it| it.call == synced);
            let synced = synced.unwrap_or_else(|| panic!("line {}: never synced", step.begin));
            assert!(
                synced.end < self.told_after(step.begin),
                "line {}",
                step.begin
            );
            records += 1;
        }
        assert!(
            records >= 6,
            "two services with their routes, and a plugin four times: {records}"
        );
    }

    /// Cuts the power after each step and in the midst of it, and starts a gateway from what is left.
    fn what_was_acknowledged_survives_every_cut(&self) {
        let (cuts, states) = self.cut(|_| false).unwrap();
        assert!(cuts > 1_000 && states > 1_000, "{cuts} {states}");
        // and that it would be seen if it were not so
        let is_sync = |call: &Call, what: &str| *call == Call::Sync(self.path(what));
        for (forgotten, is_forgotten) in [
            (
                "new files",
                &(|it: &Call| is_sync(it, "last_known_good.new")) as &dyn Fn(&Call) -> bool,
            ),
            ("changes", &|it| is_sync(it, "last_known_good.changes")),
            ("names", &|it| *it == Call::Sync(self.prefix.clone())),
        ] {
            let lost = self.cut(is_forgotten);
            assert!(
                lost.is_err(),
                "no cut shows that {forgotten} are not synced"
            );
        }
    }

    /// The number of cuts, and of different states of the disk; or what was lost. Some steps are left
    /// out.
    fn cut(&self, is_left_out: impl Fn(&Call) -> bool) -> Result<(usize, usize), String> {
        let steps: Vec<&Step> = self.on_disk().collect();
        let overlap = steps.windows(2).find(|pair| pair[1].begin < pair[0].end);
        assert!(overlap.is_none(), "two at once: {overlap:?}");
        let mut disk = Disk::new(&self.prefix);
        let mut known: BTreeMap<Remains, Option<String>> = BTreeMap::new();
        // versions as they are put on the disk, each with the line where that began
        let mut written: Vec<(usize, String)> = Vec::new();
        let mut cuts = 0;
        for step in steps.into_iter().filter(|it| !is_left_out(&it.call)) {
            let due = self.acknowledged(step.begin, &written);
            disk.apply(&step.call);
            for remains in disk.after_a_cut() {
                cuts += 1;
                let lost = |what: String| {
                    let (line, call) = (step.begin, &step.call);
                    format!(
                        "power cut at line {line} ({call:.200?}): {what}; {due:?} was acknowledged"
                    )
                };
                if let std::collections::btree_map::Entry::Vacant(new) =
                    known.entry(remains.clone())
                {
                    let version = version_of(&remains).map_err(&lost)?;
                    new.insert(version);
                }
                let left = &known[&remains];
                if *left < due {
                    return Err(lost(format!("{left:?} is left")));
                }
            }
            let whole = version_of(&disk.as_it_is())?;
            if let Some(version) =
                whole.filter(|it| written.last().is_none_or(|(_, last)| it > last))
            {
                written.push((step.begin, version));
            }
        }
        assert!(written.len() >= 6, "{written:?}");
        Ok((cuts, known.len()))
    }

    /// The version that the control plane was told of before a line.
    fn acknowledged(&self, line: usize, written: &[(usize, String)]) -> Option<String> {
        let told = Call::Send(self.control_port);
        let mut steps = self.steps.iter().rev();
        let told = steps.find(|it| it.call == told && it.begin < line)?;
        let mut before = written
            .iter()
            .rev()
            .filter(|(began, _)| *began < told.begin);
        before.next().map(|(_, version)| version.clone())
    }
}

/// The version that a gateway starts with; `None` if it starts with nothing.
fn version_of(remains: &Remains) -> Result<Option<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in remains {
        let (_, name) = path.rsplit_once('/').unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let loaded = LastKnownGood::new(dir.path()).load();
    let Some(loaded) = loaded.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let mut version = loaded.saved.version;
    for record in loaded.changes {
        if record.deltas.from == version {
            version = Some(record.deltas.version);
        }
    }
    Ok(version.map(|it| it.to_string()))
}
