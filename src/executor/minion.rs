//! `km minion`: what Mesos starts on an agent. It runs the executor, starts it again when it dies without being told to, and keeps its
//! log. A restarted executor finds its containers again, so that a crash of the executor costs no pod.
