//! Candidates against a server, on a simulated clock.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::*;
use crate::client::fake::{Line, Server};

/// Begins and ends of leadership, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn stand(tasks: &mut JoinSet<anyhow::Result<()>>, server: &Arc<Server>, log: &Log, identity: &'static str) -> (Arc<Line>, Shutdown) {
    let (line, shutdown) = (Arc::new(Line { server: server.clone(), ..Line::default() }), Shutdown::new());
    let (client, log, stop) = (Client::new(line.clone()), log.clone(), shutdown.clone());
    let candidate = Candidate::new("kube-system", "scheduler", identity);
    tasks.spawn(candidate.run(client, stop, move |stop| async move {
        log.lock().push(format!("{identity} begins"));
        stop.cancelled().await;
        log.lock().push(format!("{identity} ends"));
        Ok(())
    }));
    (line, shutdown)
}

async fn logged(log: &Log, expected: &[&str]) {
    while log.lock().len() < expected.len() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(*log.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn one_leads_until_it_stops_or_is_cut_off() {
    let (server, log, mut tasks) = (Arc::new(Server::default()), Log::default(), JoinSet::new());
    let (_, stop_a) = stand(&mut tasks, &server, &log, "a");
    logged(&log, &["a begins"]).await;
    let (line_b, _stop_b) = stand(&mut tasks, &server, &log, "b");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    logged(&log, &["a begins"]).await;

    // It releases the lease, so the other need not wait until the lease expires.
    let begun = Instant::now();
    stop_a.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    logged(&log, &["a begins", "a ends", "b begins"]).await;
    assert!(begun.elapsed() < Duration::from_secs(3));

    // Once cut off, it stops before another may begin.
    *line_b.cut.lock() = true;
    let (_, stop_c) = stand(&mut tasks, &server, &log, "c");
    let error = tasks.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "lost the lease kube-system/scheduler");
    logged(&log, &["a begins", "a ends", "b begins", "b ends", "c begins"]).await;
    let spec = server.objects.lock()["/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/scheduler"]["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&"c".into(), &2.into()));
    stop_c.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
}
