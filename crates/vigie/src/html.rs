//! Pages that are files: one style, no script, no network, light and dark, fit for printing. What is on them is their makers'
//! business; everything that came from data goes through [`escape`].

const STYLE: &str = "
:root{--paper:#fbfaf7;--ink:#1f2429;--faint:#666d75;--line:#dedad1;--card:#fff;--a:#2f6db3;--b:#b9b3a6;--good:#2a7d4f;--bad:#b3382c;
--warm:#c8641b;--wait:#8a6d1a}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e7e5e0;--faint:#9aa0a7;--line:#343a41;--card:#1d2126;--a:#6aa5e8;
--b:#5b6067;--good:#5cc08a;--bad:#ef7d70;--warm:#f0994f;--wait:#d9b64e}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:70rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.15;margin:0 0 .25rem}h2{font-size:1.35rem;margin:2.75rem 0 .25rem}h3{font-size:1rem;margin:1.5rem 0 .35rem}
p{max-width:46rem;margin:.4rem 0}.faint,figcaption,th,dt{color:var(--faint)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.75rem;margin:1.25rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.75rem 1rem}
.card b{display:block;font-size:1.55rem;line-height:1.25;font-variant-numeric:tabular-nums}.card small{color:var(--faint)}
.policy{background:var(--card);border:1px solid var(--line);border-radius:.8rem;padding:1rem 1.25rem 1.25rem;margin:1.25rem 0;break-inside:avoid}
.policy h2{margin:.1rem 0}.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1.5rem}
.tag{display:inline-block;border-radius:1rem;padding:.05rem .7rem;font-size:.85rem;font-weight:600;color:#fff;background:var(--faint)}
.works{background:var(--good)}.harms{background:var(--bad)}.undecided{background:var(--wait)}.expired{background:var(--faint)}
figure{margin:1rem 0}figcaption{font-size:.9rem;max-width:46rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--faint);font:12px system-ui,sans-serif}svg .v{fill:var(--ink)}
.axis{stroke:var(--line)}.zero{stroke:var(--faint)}.a{fill:var(--a)}.b{fill:var(--b)}.al{stroke:var(--a);fill:none;stroke-width:2}
.good{fill:var(--good);stroke:var(--good)}.bad{fill:var(--bad);stroke:var(--bad)}.open{fill:var(--wait);stroke:var(--wait)}
.warm{fill:var(--warm)}.goal{stroke:var(--ink);stroke-dasharray:2 3}.diagonal{stroke:var(--faint);stroke-dasharray:4 4}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.heat td{padding:.6rem .7rem;border:2px solid var(--paper);text-align:right;font-variant-numeric:tabular-nums}
.heat td small{display:block;color:var(--faint)}.heat th{padding:.35rem .7rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:.75rem 0}dd{margin:0;font-variant-numeric:tabular-nums}
.spark{width:7rem;display:inline-block}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;margin:0 .3rem 0 0;vertical-align:-.05rem}
.key.a{background:var(--a)}.key.b{background:var(--b)}.w{white-space:nowrap}
pre,code{font:.85rem/1.45 ui-monospace,monospace}pre{background:var(--card);border:1px solid var(--line);border-radius:.5rem;
padding:.75rem 1rem;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
@media print{body{background:#fff}.card,.policy{border-color:#bbb}}
";

/// Text that no reader can take for markup, in attributes too.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // HTML has no way to write the other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A whole page: its title, what its style has besides, and its body as HTML.
pub(crate) fn document(title: &str, style: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
}
