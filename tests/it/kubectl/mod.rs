//! kubectl's commands: each file in `sessions/` is a transcript that is played against a cluster of its own, a running `km apiserver` and
//! `km controller-manager` without nodes. [`session`] describes the format.

mod cluster;
mod pattern;
mod session;

use parking_lot::Mutex;

use self::cluster::Cluster;
use self::session::Case;
use crate::support::source;

/// Concurrent cases of a session, which mostly wait.
const AT_A_TIME: usize = 3;

/// Plays every case of a session; they share the cluster, each has a namespace and a directory.
#[expect(clippy::print_stderr, reason = "nothing is left out silently")]
fn play(name: &str) {
    let text = std::fs::read_to_string(source(&format!("tests/it/kubectl/sessions/{name}.txt"))).unwrap();
    let cases = session::parse(&text).unwrap_or_else(|problem| panic!("{name}.txt: {problem}"));
    let mut cluster = Cluster::start();
    let (cases, old): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|it| it.since <= cluster.minor());
    for case in old {
        eprintln!("left out, needs kubectl 1.{} and this is 1.{}: {}", case.since, cluster.minor(), case.title);
    }
    if cases.is_empty() {
        return;
    }
    cluster.prepare(&cases.iter().map(Case::namespace).collect::<Vec<_>>());
    let (waiting, problems) = (Mutex::new(cases.into_iter().rev().collect::<Vec<_>>()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(case) = waiting.lock().pop() else { return };
                    if let Err(problem) = case.play(&cluster) {
                        problems.lock().push(format!("{name}.txt: {}: {problem}", case.title));
                    }
                }
            });
        }
    });
    let problems = problems.into_inner();
    assert!(problems.is_empty(), "{} of the session's cases went otherwise\n\n{}", problems.len(), problems.join("\n\n"));
}

macro_rules! sessions {
    ($($name:ident)*) => {
        $(#[test] fn $name() { play(stringify!($name)); })*

        #[test]
        fn every_session_is_played() {
            let mut files: Vec<String> = std::fs::read_dir(source("tests/it/kubectl/sessions")).unwrap()
                .map(|it| it.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            files.sort();
            assert_eq!(files, [$(stringify!($name)),*]);
        }
    };
}

sessions! {
    about access apply client create delete describe flags_apply flags_change flags_create flags_raw flags_read get kinds modify no_container nodes scale
    server_side wait warned
}
