//! What the kernel knows about this process (proc(5)).

use std::{fs, io, time::UNIX_EPOCH};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// The resources that the process uses.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub threads: u64,
    pub open_fds: usize,
    /// `None` for no limit.
    pub max_fds: Option<u64>,
    /// Seconds after 1970.
    pub started: f64,
}

impl Figures {
    /// Reads the figures. Does not wait for a disk.
    ///
    /// # Errors
    /// Where there is no `/proc`.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The program's name, in parentheses, may contain anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        // proc(5) numbers the fields from 1, and the name is field 2.
        let field = |number: usize| -> u64 {
            fields.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        #[expect(clippy::cast_precision_loss, reason = "what is shown needs no more digits")]
        let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
        Ok(Self {
            cpu_seconds: seconds(field(14) + field(15)),
            resident_bytes: field(24).saturating_mul(page_size() as u64),
            virtual_bytes: field(23),
            threads: field(20),
            open_fds: fs::read_dir("/proc/self/fd")?.count().saturating_sub(1),
            max_fds: getrlimit(Resource::Nofile).current,
            started: started(seconds(field(22))),
        })
    }
}

/// The time of a start, in seconds since 1970, given in seconds after the boot. The boot time is
/// taken from the clock, because systemd's `ProcSubset=pid` hides `/proc/stat`.
#[expect(clippy::cast_precision_loss, reason = "what is shown needs no more digits")]
fn started(after_boot: f64) -> f64 {
    let since_boot = clock_gettime(ClockId::Boottime);
    let since_boot = since_boot.tv_sec as f64 + since_boot.tv_nsec as f64 / 1e9;
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
    now - since_boot + after_boot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_this_process() {
        let held = vec![1_u8; 32 << 20];
        let file = fs::File::open("/proc/self/stat").unwrap();
        let figures = Figures::read().unwrap();
        assert!(figures.resident_bytes > held.len() as u64, "{figures:?}");
        assert!(figures.virtual_bytes >= figures.resident_bytes, "{figures:?}");
        assert!(figures.open_fds > 3 && figures.threads >= 2, "{figures:?}");
        let since = UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - figures.started;
        assert!((0.0..3600.0).contains(&since), "{figures:?}");
        drop(file);
    }
}
