//! `kill -9` at any moment: the embedded store keeps every write that it acknowledged, and its history has no gap.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use km::object::Revision;
use km::store::embedded::{Config, Embedded};
use km::store::{Change, Expect, Outcome, StoreError};
use rand::RngExt;
use tokio::task::JoinSet;

use super::contract::{Follower, Shared, read_all};

const ROUNDS: usize = 200;
const WRITERS: usize = 8;
/// Set for the process that is to be killed: where its store is.
const DIR: &str = "KM_TEST_CRASH_DIR";

fn open(dir: &Path) -> Shared {
    // Little history, so that compaction is interrupted as well.
    Embedded::open(Config { history_revisions: 20_000, ..Config::new(dir) }).unwrap()
}

/// The process that is killed: writes as fast as it can, and prints acknowledged writes. As a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open(Path::new(&dir));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(store.clone(), writer));
    }
    writers.join_all().await;
}

/// Creates, updates and deletes its own few keys for ever.
async fn write(store: Shared, writer: usize) {
    for n in 0usize.. {
        let key = format!("/t/{writer}/{}", n % 7);
        let value = format!("{writer} {n} {}", "x".repeat(n * 97 % 5000));
        let current = store.get(&key).await.unwrap();
        let (outcome, what) = match current {
            None => (store.put(&key, value.clone().into(), Expect::Absent, None).await, value.len()),
            Some(entry) if n % 3 == 0 => (store.delete(&key, entry.revision).await, usize::MAX),
            Some(entry) => (store.put(&key, value.clone().into(), Expect::At(entry.revision), None).await, value.len()),
        };
        let Outcome::Done(revision) = outcome.unwrap() else { panic!("somebody else writes {key}") };
        // One write, so that the parent sees whole lines.
        std::io::stdout().write_all(format!("\nacknowledged {revision} {key} {what}\n").as_bytes()).unwrap();
    }
}

/// The output of a victim: revisions with the key and the length of its value (none: deleted). Notifies `begun` of the first.
fn acknowledged(output: BufReader<ChildStdout>, begun: &mpsc::Sender<()>) -> BTreeMap<Revision, (String, Option<usize>)> {
    let mut writes = BTreeMap::new();
    for line in output.lines().map_while(Result::ok) {
        if let ["acknowledged", revision, key, length] = line.split(' ').collect::<Vec<_>>()[..] {
            let length = length.parse::<usize>().unwrap();
            if writes.is_empty() {
                // The receiver may no longer wait.
                let _ = begun.send(());
            }
            writes.insert(revision.parse().unwrap(), (key.to_owned(), (length != usize::MAX).then_some(length)));
        }
    }
    writes
}

fn start(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::crash::victim", "--nocapture"])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    (victim, output)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = rand::rng();
    let mut position = open(dir.path()).revision().await.unwrap();
    let mut state: BTreeMap<String, Change> = BTreeMap::new();
    let (mut total, mut silent) = (0, 0);
    let began = Instant::now();
    for round in 0..ROUNDS {
        let (mut victim, output) = start(dir.path());
        let (begun, beginning) = mpsc::channel();
        let reader = std::thread::spawn(move || acknowledged(output, &begun));
        // Every other time during its start, while it opens the store; otherwise while it writes.
        if round % 2 == 0 {
            beginning.recv_timeout(Duration::from_secs(60)).expect("it writes");
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..50_000)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let acknowledged = reader.join().unwrap();
        total += acknowledged.len();
        silent += usize::from(acknowledged.is_empty());

        let store = open(dir.path());
        let head = store.revision().await.unwrap();
        let history = match Follower::new(&store, "/t/", position).await.until(head).await {
            Ok(history) => history,
            Err(StoreError::Compacted { oldest, .. }) => panic!("round {round}: {position}..{head}, but the oldest kept is {oldest}"),
            Err(error) => panic!("round {round}: {error}"),
        };
        let revisions: Vec<Revision> = history.iter().map(|change| change.revision).collect();
        assert_eq!(revisions, (position + 1..=head).collect::<Vec<_>>(), "round {round}: a gap");
        for (revision, (key, length)) in &acknowledged {
            let change = revision.checked_sub(position + 1).and_then(|index| history.get(usize::try_from(index).unwrap()));
            let change = change.unwrap_or_else(|| panic!("round {round}: {revision} of {key} is lost, the newest is {head}"));
            assert_eq!((&change.key, change.value.as_ref().map(|value| value.len())), (key, *length), "round {round}: {revision}");
        }
        for change in history {
            match change.value {
                Some(_) => state.insert(change.key.clone(), change),
                None => state.remove(&change.key),
            };
        }
        let (entries, _) = read_all(&store, "/t/", 10, 0).await.unwrap();
        let stored: Vec<_> = entries.into_iter().map(|entry| (entry.key, entry.revision, Some(entry.value))).collect();
        let expected: Vec<_> = state.values().map(|change| (change.key.clone(), change.revision, change.value.clone())).collect();
        assert_eq!(stored, expected, "round {round}");
        position = head;
        assert_eq!(Arc::strong_count(&store), 1);
    }
    assert!(total > ROUNDS && silent <= ROUNDS / 2, "{total} writes, {silent} rounds without any");
    #[expect(clippy::print_stderr, reason = "how hard it tried, for who runs it with --nocapture")]
    {
        eprintln!("{ROUNDS} kills, {total} acknowledged writes, {silent} rounds without any, {:?}", began.elapsed());
    }
}
