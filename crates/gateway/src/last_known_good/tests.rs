use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn saved(name: &str) -> Saved {
    let table = json!({"_format_version": "3.0", "services": [{"id": "a", "name": name}]});
    let payload = Reconfigure::new(table, 1.5);
    Saved {
        hash: payload.hash(),
        version: None,
        payload,
    }
}

fn store() -> (tempfile::TempDir, LastKnownGood) {
    let dir = tempfile::tempdir().unwrap();
    let store = LastKnownGood::new(&dir.path().join("prefix"));
    (dir, store)
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn nothing_stored_is_no_error() {
    assert!(store().1.load().unwrap().is_none());
}

#[test]
fn the_newest_comes_back_and_the_one_before_is_kept() {
    let (_dir, store) = store();
    for name in ["one", "two", "three"] {
        store.store(&saved(name)).unwrap();
        let loaded = store.load().unwrap().unwrap();
        assert_eq!(loaded.saved, saved(name));
        assert!(loaded.newest_problem.is_none());
    }
    assert_eq!(read(store.previous()).unwrap(), saved("two"));
    let names: Vec<_> = fs::read_dir(&store.prefix)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "nothing is left over: {names:?}");
    for name in names {
        let mode = fs::metadata(store.prefix.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn an_empty_configuration_keeps_its_zero_hash() {
    let (_dir, store) = store();
    let empty = Saved {
        hash: ConfigHash::ZERO,
        ..saved("x")
    };
    store.store(&empty).unwrap();
    assert!(store.load().unwrap().unwrap().saved.hash.is_zero());
}

#[test]
fn a_damaged_or_missing_newest_falls_back_and_says_so() {
    #[track_caller]
    fn check(break_it: impl Fn(&Path), want: &str) {
        let (_dir, store) = store();
        store.store(&saved("one")).unwrap();
        store.store(&saved("two")).unwrap();
        break_it(&store.path(NAME));
        let loaded = store.load().unwrap().unwrap();
        assert_eq!(loaded.saved, saved("one"));
        let problem = loaded.newest_problem.unwrap().to_string();
        assert!(
            problem.contains(want) && problem.contains("/last_known_good:"),
            "{problem}"
        );
        // The next one stored must not push the good file out.
        store.store(&saved("three")).unwrap();
        assert_eq!(read(store.previous()).unwrap(), saved("one"));
        assert_eq!(store.load().unwrap().unwrap().saved, saved("three"));
    }
    check(damage, "checksum does not match");
    check(|path| fs::write(path, "").unwrap(), "cut short (0 bytes)");
    check(
        |path| fs::write(path, "something else").unwrap(),
        "not a last-known-good file",
    );
    check(|path| fs::remove_file(path).unwrap(), "missing");
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 40]).unwrap();
    };
    check(cut, "where it should be");
}

#[test]
fn two_damaged_files_are_both_named() {
    let (_dir, store) = store();
    store.store(&saved("one")).unwrap();
    damage(&store.path(NAME));
    let text = store.load().unwrap_err().to_string();
    assert!(text.contains("/last_known_good: its checksum"), "{text}");
    assert!(
        text.contains("/last_known_good.previous: it is missing"),
        "{text}"
    );
    store.store(&saved("one")).unwrap();
    store.store(&saved("two")).unwrap();
    damage(&store.path(NAME));
    damage(&store.previous());
    let text = store.load().unwrap_err().to_string();
    assert!(
        text.contains("/last_known_good.previous: its checksum"),
        "{text}"
    );
}

#[test]
fn what_a_crash_left_is_no_obstacle() {
    let (_dir, store) = store();
    store.store(&saved("one")).unwrap();
    fs::write(store.path("last_known_good.new"), "half").unwrap();
    fs::write(store.path("last_known_good.kept"), "half").unwrap();
    assert_eq!(store.load().unwrap().unwrap().saved, saved("one"));
    store.store(&saved("two")).unwrap();
    assert_eq!(store.load().unwrap().unwrap().saved, saved("two"));
    assert_eq!(read(store.previous()).unwrap(), saved("one"));
}

#[test]
fn a_later_format_is_named() {
    let mut bytes = format::encode(&saved("one"));
    bytes[8] = 3;
    let text = format::decode(&bytes).unwrap_err().to_string();
    assert_eq!(text, "it has format version 3, this build reads up to 2");
}

#[test]
fn an_impossible_prefix_is_named() {
    let (dir, _) = store();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let text = LastKnownGood::new(&file)
        .store(&saved("x"))
        .unwrap_err()
        .to_string();
    assert!(text.contains(file.to_str().unwrap()), "{text}");
}

#[test]
fn every_truncation_is_detected() {
    let bytes = format::encode(&saved("one"));
    for length in 0..bytes.len() {
        assert!(format::decode(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn every_bit_flip_is_detected() {
    let bytes = format::encode(&saved("one"));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            assert!(format::decode(&bytes).is_err(), "byte {at}, bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn any_configuration_comes_back(
        names in proptest::collection::vec("\\PC{0,20}", 0..8),
        version in any::<Option<u64>>(),
    ) {
        let services: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        let payload = Reconfigure::new(json!({"services": services}), 0.25);
        let version = version.map(|revision| SyncVersion::new(1, revision));
        let saved = Saved { hash: payload.hash(), version, payload };
        prop_assert_eq!(format::decode(&format::encode(&saved)).unwrap(), saved);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(format::decode(&bytes).is_err());
        let mut ours = b"SPORTLKG\x01\0\0\0".to_vec();
        ours.extend(bytes);
        prop_assert!(format::decode(&ours).is_err());
    }

    #[test]
    fn several_damages_are_detected(
        hits in proptest::collection::vec((any::<usize>(), 1_u8..), 1..6),
        cut in any::<usize>(),
    ) {
        let whole = format::encode(&saved("one"));
        let mut bytes = whole.clone();
        for (at, mask) in hits {
            let at = at % bytes.len();
            bytes[at] ^= mask;
        }
        bytes.truncate(bytes.len() - cut % 3);
        prop_assume!(bytes != whole);
        prop_assert!(format::decode(&bytes).is_err());
    }
}
