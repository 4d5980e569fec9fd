//! Who fetches what when: the threads, the queue, and one download of one file at a time.
//!
//! Hits and directories are read by two threads of their own. Everything else
//! waits in a queue for one of a fixed number of tasks, all on one runtime that
//! starts with the first of them. Writing to disk blocks its threads for
//! moments; that is the page cache, and simpler than handing buffers around.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::task::AbortHandle;

use super::transfer::Counters;
use super::{Shared, Sources, Wanted, refusal};
use crate::cnb::id::BuildpackRef;
use crate::event::Event;
use crate::executor::{Arrivals, ArtifactRequest, Refusal};
use crate::fault::{Diagnose as _, is_disk_full};
use crate::grant::Grants;
use crate::integrity::Integrity;
use crate::network::Artifact;
use crate::oci::digest::HashingWriter;
use crate::store::{Downloads, StoreError};

/// Threads that hash what is there already.
const READERS: usize = 2;

/// Threads that decrypt, hash and write what comes.
const NETWORK_THREADS: usize = 2;

/// Names are resolved on threads that block.
const RESOLVER_THREADS: usize = 4;

/// Between two looks at whether another process has finished a download.
const OTHERS: Duration = Duration::from_millis(20);

/// Between two events of progress.
const REPORT: Duration = Duration::from_millis(100);

/// The runtime of a build's downloads; starts when first needed.
#[derive(Default)]
pub(super) struct Runtime(OnceLock<Option<runtime::Runtime>>);

impl Runtime {
    fn handle(&self) -> Option<&runtime::Handle> {
        let start = || {
            runtime::Builder::new_multi_thread()
                .worker_threads(NETWORK_THREADS)
                .max_blocking_threads(RESOLVER_THREADS)
                .thread_name("downloads")
                .enable_all()
                .build()
                .ok()
        };
        self.0.get_or_init(start).as_ref().map(runtime::Runtime::handle)
    }
}

#[cfg(test)]
impl Runtime {
    pub(super) fn is_started(&self) -> bool {
        self.0.get().is_some()
    }
}

impl Drop for Runtime {
    /// Without waiting for a name that is being resolved.
    fn drop(&mut self) {
        if let Some(Some(runtime)) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where one artifact goes. It gets there, whatever happens: a guest that waits
/// for it would wait for ever. Only when the session is over nobody waits.
struct Delivery {
    index: usize,
    arrivals: Arrivals,
    is_done: bool,
    is_cancelled: Arc<AtomicBool>,
}

impl Delivery {
    fn give(mut self, result: Result<File, Refusal>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<File, Refusal>) {
        let was_done = std::mem::replace(&mut self.is_done, true);
        if !was_done && !self.is_cancelled.load(Ordering::SeqCst) {
            (self.arrivals)(self.index, result);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // Only a defect of ours leads here undone.
        self.send(Err(refusal("host.failed", "the download was given up".to_owned(), None)));
    }
}

/// One artifact, for everyone who asked for it in one call.
struct Job {
    wanted: Wanted,
    deliveries: Vec<Delivery>,
}

impl Job {
    /// Gives everyone a file of their own: a position in a file is not shared.
    fn give(self, result: Result<File, Refusal>, downloads: Option<&Downloads>) {
        let mut deliveries = self.deliveries.into_iter();
        let first = deliveries.next();
        let again = |result: &Result<File, Refusal>| match (result, &self.wanted.integrity, downloads) {
            (Err(refusal), _, _) => Err(refusal.clone()),
            (Ok(_), Some(integrity), Some(downloads)) => {
                downloads.open(integrity, &|| false).ok_or_else(|| gone(&self.wanted))
            }
            (Ok(_), _, _) => Err(gone(&self.wanted)),
        };
        deliveries.for_each(|delivery| delivery.give(again(&result)));
        if let Some(first) = first {
            first.give(result);
        }
    }
}

fn gone(wanted: &Wanted) -> Refusal {
    let message = format!("`{}` went away after it was downloaded", wanted.path.in_directory());
    refusal("store.io", message, None)
}

/// What one running buildpack fetches. Dropping it ends what is still on its way.
pub struct Session {
    sources: Sources,
    buildpack: BuildpackRef,
    grants: Grants,
    work: Arc<Work>,
    /// When progress was last told, and what.
    told: Option<(Instant, Event)>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.work.cancel();
    }
}

/// What the threads and tasks of a session share.
struct Work {
    shared: Arc<Shared>,
    counters: Counters,
    is_cancelled: Arc<AtomicBool>,
    queue: Mutex<Queue>,
    /// What was given to the buildpack.
    arrived: Mutex<BTreeSet<Artifact>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Tasks that take jobs; none of them waits for one.
    takers: usize,
    tasks: Vec<AbortHandle>,
}

impl Session {
    pub(super) fn new(sources: Sources, buildpack: BuildpackRef, grants: Grants) -> Self {
        let work = Work {
            shared: Arc::clone(&sources.shared),
            counters: Counters::default(),
            is_cancelled: Arc::default(),
            queue: Mutex::default(),
            arrived: Mutex::default(),
        };
        Self { sources, buildpack, grants, work: Arc::new(work), told: None }
    }

    /// Every file that the buildpack was given so far.
    pub fn arrived(&self) -> BTreeSet<Artifact> {
        self.work.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts to fetch `artifacts`, see [`crate::executor::BuildHost::fetch`].
    /// Returns at once, also when nothing has arrived yet.
    pub fn fetch(&mut self, artifacts: Vec<ArtifactRequest>, arrivals: &Arrivals) {
        let shared = &self.work.shared;
        let mut jobs: Vec<Job> = Vec::new();
        let mut known: HashMap<ArtifactRequest, usize> = HashMap::new();
        for (index, artifact) in artifacts.into_iter().enumerate() {
            let delivery = Delivery {
                index,
                arrivals: Arc::clone(arrivals),
                is_done: false,
                is_cancelled: Arc::clone(&self.work.is_cancelled),
            };
            // The same file twice is downloaded once; without integrity it is not kept to be opened twice.
            let is_kept = artifact.integrity.is_some();
            if let Some(same) = known.get(&artifact).filter(|_| is_kept) {
                jobs[*same].deliveries.push(delivery);
                continue;
            }
            match Wanted::check(shared, &self.buildpack, &self.grants, artifact.clone()) {
                Ok(wanted) => {
                    known.insert(artifact, jobs.len());
                    jobs.push(Job { wanted, deliveries: vec![delivery] });
                }
                Err(refusal) => delivery.give(Err(refusal)),
            }
        }
        let mut tally = shared.tally();
        tally.weak += jobs.iter().filter(|job| job.wanted.is_weak()).count();
        drop(tally);
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| may_be_here(&job.wanted, shared.downloads.as_ref()));
        // The network first: it takes longest.
        self.work.download(elsewhere, &self.sources.runtime);
        self.read(here.into());
    }

    /// Reads what is on this machine.
    fn read(&self, jobs: VecDeque<Job>) {
        let threads = READERS.min(jobs.len());
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let (jobs, work, runtime) =
                (Arc::clone(&jobs), Arc::clone(&self.work), Arc::clone(&self.sources.runtime));
            let read = move || {
                while let Some(job) = next(&jobs).filter(|_| !work.is_cancelled()) {
                    work.read_one(job, &runtime);
                }
            };
            // Without a thread the jobs are dropped, which says so to whoever waits.
            let _ = std::thread::Builder::new().name("downloads".to_owned()).spawn(read);
        }
    }

    /// How far downloads are, if there is something new to tell; to be called often.
    pub fn progress(&mut self) -> Option<Event> {
        let event = self.work.counters.event()?;
        let is_over =
            matches!(event, Event::Download { done_files, total_files, .. } if done_files == total_files);
        let is_due = match &self.told {
            None => true,
            Some((when, told)) => *told != event && (is_over || when.elapsed() >= REPORT),
        };
        is_due.then(|| {
            self.told = Some((Instant::now(), event.clone()));
            event
        })
    }
}

fn next(jobs: &Mutex<VecDeque<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn may_be_here(wanted: &Wanted, downloads: Option<&Downloads>) -> bool {
    let kept = downloads.zip(wanted.integrity.as_ref());
    wanted.directory().is_some() || kept.is_some_and(|(downloads, integrity)| downloads.may_have(integrity))
}

impl Work {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    /// Ends everything.
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
        let mut queue = self.queue();
        let (jobs, tasks) = (std::mem::take(&mut queue.jobs), std::mem::take(&mut queue.tasks));
        drop(queue);
        tasks.iter().for_each(AbortHandle::abort);
        drop(jobs);
    }

    fn read_one(self: &Arc<Self>, job: Job, runtime: &Runtime) {
        let stop = || self.is_cancelled();
        if let Some(directory) = job.wanted.directory() {
            for delivery in job.deliveries {
                let result = job.wanted.open_in(directory, &stop);
                self.note(&job.wanted, &result);
                delivery.give(result);
            }
            return;
        }
        let downloads = self.shared.downloads.as_ref();
        let kept = downloads.zip(job.wanted.integrity.as_ref());
        match kept.and_then(|(downloads, integrity)| downloads.open(integrity, &stop)) {
            Some(file) => {
                let result = Ok(file);
                self.note(&job.wanted, &result);
                job.give(result, downloads);
            }
            None => self.download(vec![job], runtime),
        }
    }

    /// Queues what has to come over the network, and makes sure that somebody takes it.
    fn download(self: &Arc<Self>, jobs: Vec<Job>, runtime: &Runtime) {
        if jobs.is_empty() || self.is_cancelled() {
            return;
        }
        if self.shared.settings.offline {
            for job in jobs {
                self.refuse_offline(job);
            }
            return;
        }
        let Some(handle) = runtime.handle() else {
            for job in jobs {
                let message = "the host could not start its downloads".to_owned();
                job.give(Err(refusal("host.failed", message, None)), None);
            }
            return;
        };
        self.shared.tally().unchecked += jobs.iter().filter(|job| job.wanted.integrity.is_none()).count();
        self.counters.total_files.fetch_add(jobs.len(), Ordering::Relaxed);
        let most = usize::try_from(self.shared.network.limits.http_connections).unwrap_or(usize::MAX);
        let mut queue = self.queue();
        queue.jobs.extend(jobs);
        queue.tasks.retain(|task| !task.is_finished());
        for _ in queue.takers..most.min(queue.takers + queue.jobs.len()) {
            queue.takers += 1;
            let task = handle.spawn(take_jobs(Arc::clone(self)));
            queue.tasks.push(task.abort_handle());
        }
    }

    /// Notes what the buildpack is about to be given. A file of an unknown hash is hashed now;
    /// one that cannot be read is trouble of whoever reads it next.
    fn note(&self, wanted: &Wanted, result: &Result<File, Refusal>) {
        let Ok(file) = result else { return };
        let hash = match wanted.integrity.as_ref().map(Integrity::values) {
            Some([hash]) => Some(hash.to_string()),
            // Any of several was right.
            Some(_) => wanted
                .integrity
                .as_ref()
                .and_then(|known| known.hash(Whole::of(file), &|| false).ok())
                .map(|hash| hash.to_string()),
            None => sha256_of(Whole::of(file)).ok(),
        };
        let Some(hash) = hash else { return };
        let artifact = Artifact {
            source: wanted.source.clone(),
            path: wanted.path.in_directory(),
            hash,
            is_pinned: wanted.integrity.is_some() && !wanted.is_weak(),
        };
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).insert(artifact);
    }

    fn refuse_offline(&self, job: Job) {
        let (path, source) = (job.wanted.path.in_directory(), &job.wanted.source);
        let message =
            format!("`{path}` of the source `{source}` is not in the store, and this build is offline");
        self.shared.tally().missing.insert(format!("`{path}` of `{source}`"));
        let hint = "build once with the network, or set the source to a directory that has it".to_owned();
        job.give(Err(refusal("source.offline", message, Some(hint))), None);
    }

    /// The next job; the task that gets none has to end.
    fn take(&self) -> Option<Job> {
        let mut queue = self.queue();
        let job = queue.jobs.pop_front();
        if job.is_none() {
            queue.takers -= 1;
        }
        job
    }

    async fn download_one(&self, wanted: &Wanted) -> Result<File, Refusal> {
        let no_store = || refusal("host.failed", "there is no store to download into".to_owned(), None);
        let downloads = self.shared.downloads.as_ref().ok_or_else(no_store)?;
        let target = wanted.target().ok_or_else(no_store)?;
        let scratch = match &wanted.integrity {
            None => downloads.scratch().map_err(|error| store_failed(&error))?,
            Some(integrity) => loop {
                let claim = downloads.claim(integrity).map_err(|error| store_failed(&error))?;
                // Whoever had it before us may have finished just now.
                if let Some(file) = self.finished_by_others(downloads, integrity) {
                    return Ok(file);
                }
                match claim {
                    Some(scratch) => break scratch,
                    None => tokio::time::sleep(OTHERS).await,
                }
            },
        };
        let found = self.shared.network.download(&target, scratch.file(), &self.counters).await?;
        scratch.finish(found.as_ref()).map_err(|error| store_failed(&error))
    }

    fn finished_by_others(&self, downloads: &Downloads, integrity: &Integrity) -> Option<File> {
        downloads.may_have(integrity).then(|| downloads.open(integrity, &|| self.is_cancelled())).flatten()
    }
}

/// All of a file, without moving where others read it.
struct Whole<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Whole<'a> {
    fn of(file: &'a File) -> Self {
        Self { file, at: 0 }
    }
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn sha256_of(mut file: Whole<'_>) -> io::Result<String> {
    let mut hashing = HashingWriter::new(io::sink());
    io::copy(&mut file, &mut hashing)?;
    Ok(hashing.finish().0.to_string())
}

async fn take_jobs(work: Arc<Work>) {
    while let Some(job) = work.take() {
        let result = work.download_one(&job.wanted).await;
        work.note(&job.wanted, &result);
        work.counters.done_files.fetch_add(1, Ordering::Relaxed);
        job.give(result, work.shared.downloads.as_ref());
    }
}

fn store_failed(error: &StoreError) -> Refusal {
    let hint = error.hint();
    let what = if is_disk_full(error) { "no space is left" } else { "the store cannot be written" };
    refusal(error.id(), format!("{what} to keep a download"), hint)
}

impl Counters {
    /// What they say now; nothing when nothing came over the network.
    fn event(&self) -> Option<Event> {
        let total_files = self.total_files.load(Ordering::Relaxed);
        // Files first: a file counted as done has all its bytes counted.
        let done_files = self.done_files.load(Ordering::Relaxed);
        let is_known = self.announced_files.load(Ordering::Relaxed) >= total_files;
        (total_files > 0).then(|| Event::Download {
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: is_known.then(|| self.announced_bytes.load(Ordering::Relaxed)),
            done_files,
            total_files,
        })
    }
}
