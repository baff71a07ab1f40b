//! Dashboard "Runtime": the process and its machine. A table, and nothing else.

use super::table::{Dashboard, lines, number, per_second, row};

pub(super) const RUNTIME: Dashboard = Dashboard {
    name: "runtime",
    title: "vigie: runtime",
    description: "The process and its machine: builds, processor, memory, files, disk.",
    panels: &[
        row("Processes"),
        number(
            "Instances",
            "Instances that answer.",
            "none",
            &[("count(vigie_build_info{$S})", "instances")],
        ),
        number(
            "Up since",
            "Time since the youngest start.",
            "s",
            &[("time() - max(process_start_time_seconds{$S})", "up")],
        ),
        lines(
            "Builds",
            "Instances by build.",
            "none",
            &[(
                "count by (version, revision) (vigie_build_info{$S})",
                "{{version}} {{revision}}",
            )],
        ),
        lines(
            "Processor",
            "Cores in use.",
            "short",
            &[(per_second!("process_cpu_seconds_total" by "instance"), "{{instance}}")],
        ),
        lines(
            "Memory",
            "Resident memory.",
            "bytes",
            &[("sum by (instance) (process_resident_memory_bytes{$S})", "{{instance}}")],
        ),
        lines(
            "Threads",
            "Constant by design.",
            "short",
            &[("sum by (instance) (process_threads{$S})", "{{instance}}")],
        ),
        lines(
            "Files and connections",
            "Open file descriptors, how many may be open, and HTTP connections.",
            "short",
            &[
                ("sum by (instance) (process_open_fds{$S})", "files {{instance}}"),
                ("sum by (instance) (process_max_fds{$S})", "limit {{instance}}"),
                (
                    "sum by (instance) (vigie_http_connections{$S})",
                    "connections {{instance}}",
                ),
            ],
        ),
        lines(
            "Disk",
            "Free space, and the size of the disk of the data directory.",
            "bytes",
            &[
                ("min by (instance) (vigie_disk_free_bytes{$S})", "free {{instance}}"),
                ("min by (instance) (vigie_disk_size_bytes{$S})", "size {{instance}}"),
            ],
        ),
    ],
};
