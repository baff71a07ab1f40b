//! The settings as the parts want them: limits and sizes, each from its section. It never decides a number.

use crate::config::{Config, ConsentProof, StoreBackend};
use std::time::Duration;
use vigie_ingestion::limits::{JsonLimits, Limits, SegmentLimits, TransportLimits};
use vigie_pipeline::{ArchivistOptions, LiveOptions};

pub(crate) fn query_limits(config: &Config) -> vigie_archive::sql::Limits {
    vigie_archive::sql::Limits {
        rows: config.query.max_rows,
        time: config.query.max_time,
        memory_bytes: config.query.max_memory.len(),
    }
}

pub(crate) fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        json: JsonLimits {
            depth: limits.json_depth,
            keys: limits.json_keys,
            key_bytes: limits.key_length,
            string_bytes: limits.string_length.len(),
        },
        event_bytes: limits.event.len(),
        batch_events: limits.batch_events,
        wire_bytes: limits.body.len(),
        inflated_bytes: limits.inflated.len(),
        inflate_ratio: limits.inflate_ratio,
        max_age: limits.event_age,
        consent_proof: limits.consent_proof == ConsentProof::Required,
        segment: SegmentLimits {
            body_bytes: limits.segment_body.len(),
            batch_events: limits.segment_batch_events,
        },
        ..Limits::default()
    }
}

pub(crate) fn transport_limits(config: &Config) -> TransportLimits {
    let (server, limits) = (&config.server, &config.limits);
    TransportLimits {
        connections: server.max_connections,
        request_line_bytes: limits.request_line.len(),
        header_bytes: limits.headers.len(),
        header_fields: limits.header_fields,
        header_timeout: server.header_timeout,
        body_timeout: server.body_timeout,
        idle_timeout: server.idle_timeout,
        write_timeout: server.write_timeout,
        drain_timeout: server.drain_timeout,
        ..TransportLimits::default()
    }
}

pub(crate) fn live_options(config: &Config) -> LiveOptions {
    let mut options = LiveOptions {
        batch_records: config.pipeline.batch_records,
        batch_bytes: config.pipeline.batch_bytes.len(),
        ..LiveOptions::default()
    };
    if config.store.backend == StoreBackend::Redis {
        // Persisting is also how an idle worker notices that its store is gone.
        options.persist_every = Duration::from_secs(1);
    }
    options
}

pub(crate) fn archivist_options(config: &Config) -> ArchivistOptions {
    ArchivistOptions {
        rows: config.archive.flush_rows,
        bytes: config.archive.flush_bytes.len(),
        after: config.archive.flush_after,
    }
}

pub(crate) fn store_options(config: &Config) -> vigie_store::Options {
    let mut options = vigie_store::Options::new(config.log.partitions);
    options.cache_bytes = config.store.cache_size.bytes();
    options
}
