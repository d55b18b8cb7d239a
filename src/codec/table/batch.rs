//! Jobs and cron jobs.

use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec, JobStatus};

use super::row::{NONE, Row, between};
use super::workload::{CONTAINERS, IMAGES, SELECTOR};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::JOB,
        columns: &[
            NAME,
            Column::text("Status", "Whether the job runs, or how it ended."),
            Column::text("Completions", "Pods that have succeeded, of those that have to."),
            Column::text("Duration", "How long the job has run."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: |object, row| named(object, row, job),
    },
    Printer {
        resource: &resource::CRON_JOB,
        columns: &[
            NAME,
            Column::text("Schedule", "When jobs are started, in the notation of cron."),
            Column::text("Timezone", "The time zone of the schedule."),
            Column::boolean("Suspend", "Whether no jobs are started for now."),
            Column::integer("Active", "Jobs that are running."),
            Column::text("Last Schedule", "Time since a job was last started."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        cells: |object, row| named(object, row, cron_job),
    },
];

fn job(job: &Job, row: &mut Row<'_>) {
    let (no_spec, no_status) = (JobSpec::default(), JobStatus::default());
    let (spec, status) = (job.spec.as_ref().unwrap_or(&no_spec), job.status.as_ref().unwrap_or(&no_status));
    let has = |kind: &str| status.conditions.iter().flatten().any(|it| it.type_ == kind && it.status == "True");
    let deleted = job.metadata.deletion_timestamp.is_some();
    let stages = [
        ("Complete", has("Complete")),
        ("Failed", has("Failed")),
        ("Terminating", deleted),
        ("Suspended", has("Suspended")),
        ("FailureTarget", has("FailureTarget")),
        ("SuccessCriteriaMet", has("SuccessCriteriaMet")),
    ];
    row.text(stages.into_iter().find(|(_, holds)| *holds).map_or("Running", |(name, _)| name));
    let succeeded = status.succeeded.unwrap_or_default();
    row.text(match (spec.completions, spec.parallelism) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallel)) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    });
    let end = status.completion_time.as_ref().map_or(row.now(), |it| it.0);
    row.text(status.start_time.as_ref().map(|start| between(start.0, end)).unwrap_or_default());
    row.created();
    row.template(spec.template.spec.as_ref(), spec.selector.as_ref());
}

fn cron_job(it: &CronJob, row: &mut Row<'_>) {
    let (spec, status) = (it.spec.as_ref(), it.status.as_ref());
    let job = spec.and_then(|it| it.job_template.spec.as_ref());
    row.text(spec.map(|it| it.schedule.as_str()).unwrap_or_default());
    row.text_or(spec.and_then(|it| it.time_zone.as_deref()), NONE);
    row.text(match spec.and_then(|it| it.suspend) {
        Some(true) => "True",
        Some(false) => "False",
        None => super::row::UNSET,
    });
    row.integer(status.and_then(|it| it.active.as_ref()).map_or(0, Vec::len));
    match status.and_then(|it| it.last_schedule_time.as_ref()) {
        Some(last) => row.age(Some(last.0)),
        None => row.text(NONE),
    }
    row.created();
    row.template(job.and_then(|it| it.template.spec.as_ref()), job.and_then(|it| it.selector.as_ref()));
}
