//! A directory on a disk whose power may go at any moment.
//!
//! What was synced is there afterwards. Of the rest any part may be: each change of a name by
//! itself, whatever came before it, and of a file's bytes a beginning, or zeros in their place.

use std::collections::{BTreeMap, BTreeSet};

use super::trace::Call;

type Names = BTreeMap<String, usize>;

/// One directory, with names that are paths.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    directory: String,
    files: Vec<Contents>,
    names: Names,
    synced_names: Names,
    /// Since the directory was synced.
    pending: Vec<Renaming>,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Renaming {
    Put(String, usize),
    Move(String, String),
    Take(String),
}

/// What is on the disk after a cut: bytes by path.
pub(crate) type Remains = BTreeMap<String, Vec<u8>>;

impl Disk {
    pub(crate) fn new(directory: &str) -> Disk {
        Disk {
            directory: directory.to_owned(),
            ..Disk::default()
        }
    }

    /// Whether a call is about the files whose names begin so, or about the directory.
    pub(crate) fn holds(&self, path: &str, beginning: &str) -> bool {
        let inside = path.strip_prefix(&self.directory);
        inside == Some("") || inside.is_some_and(|it| it.starts_with(&format!("/{beginning}")))
    }

    pub(crate) fn apply(&mut self, call: &Call) {
        match call {
            Call::Create(path) if !self.names.contains_key(path) => {
                self.files.push(Contents::default());
                let at = self.files.len() - 1;
                self.rename(Renaming::Put(path.clone(), at));
            }
            // all of these files are only ever added to
            Call::Write(path, bytes) => self.file(path).now.extend_from_slice(bytes),
            Call::Truncate(path, length) => self.file(path).now.truncate(*length),
            Call::Sync(path) if *path == self.directory => {
                self.synced_names = self.names.clone();
                self.pending.clear();
            }
            Call::Sync(path) => {
                let file = self.file(path);
                file.synced = file.now.clone();
            }
            Call::Rename(from, to) => self.rename(Renaming::Move(from.clone(), to.clone())),
            Call::Link(from, to) => {
                let at = self.names[from];
                self.rename(Renaming::Put(to.clone(), at));
            }
            Call::Unlink(path) => self.rename(Renaming::Take(path.clone())),
            _ => {}
        }
    }

    fn file(&mut self, path: &str) -> &mut Contents {
        let at = self.names.get(path);
        let at = *at.unwrap_or_else(|| panic!("{path} was not made"));
        &mut self.files[at]
    }

    fn rename(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.names);
        self.pending.push(renaming);
    }

    /// What a program sees.
    pub(crate) fn as_it_is(&self) -> Remains {
        let bytes = |at: &usize| self.files[*at].now.clone();
        self.names
            .iter()
            .map(|(name, at)| (name.clone(), bytes(at)))
            .collect()
    }

    /// Everything that a cut may leave now.
    pub(crate) fn after_a_cut(&self) -> BTreeSet<Remains> {
        assert!(self.pending.len() <= 10, "too many names for all cases");
        // where a start takes long not every byte is cut at
        let bytes: usize = self
            .names
            .values()
            .map(|at| self.files[*at].now.len())
            .sum();
        let all_bytes = bytes < 20_000;
        let mut all = BTreeSet::new();
        for chosen in 0..1_u32 << self.pending.len() {
            let mut names = self.synced_names.clone();
            for (at, renaming) in self.pending.iter().enumerate() {
                if chosen & 1 << at != 0 {
                    renaming.apply(&mut names);
                }
            }
            let shown: BTreeSet<usize> = names.values().copied().collect();
            let torn = shown
                .iter()
                .filter(|at| self.files[**at].now != self.files[**at].synced);
            let torn: Vec<usize> = torn.copied().collect();
            let remains = |torn: Option<(usize, &Vec<u8>)>| {
                let bytes = |at: usize| match torn {
                    Some((which, bytes)) if which == at => bytes.clone(),
                    _ => self.files[at].synced.clone(),
                };
                names
                    .iter()
                    .map(|(name, at)| (name.clone(), bytes(*at)))
                    .collect()
            };
            all.insert(remains(None));
            for at in torn {
                all.extend(
                    self.files[at]
                        .torn(all_bytes)
                        .iter()
                        .map(|it| remains(Some((at, it)))),
                );
            }
        }
        all
    }
}

impl Renaming {
    fn apply(&self, names: &mut Names) {
        match self {
            Renaming::Put(path, at) => _ = names.insert(path.clone(), *at),
            Renaming::Move(from, to) => {
                if let Some(at) = names.remove(from) {
                    names.insert(to.clone(), at);
                }
            }
            Renaming::Take(path) => _ = names.remove(path),
        }
    }
}

impl Contents {
    /// What a cut may leave of it: every beginning of what was written (or some), alone and with
    /// zeros in the place of the rest.
    fn torn(&self, all_bytes: bool) -> Vec<Vec<u8>> {
        let same = self
            .now
            .iter()
            .zip(&self.synced)
            .take_while(|(a, b)| a == b);
        let kept = same.count();
        let tail = self.now.len() - kept;
        let step = if all_bytes { 1 } else { (tail / 8).max(1) };
        let cuts = (0..=tail).step_by(step);
        let mut all = Vec::new();
        for cut in cuts {
            let beginning = &self.now[..kept + cut];
            all.push(beginning.to_vec());
            let mut zeros = beginning.to_vec();
            zeros.resize(self.now.len(), 0);
            all.push(zeros);
        }
        all
    }
}
