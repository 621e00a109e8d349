use super::*;
use crate::model::Labels;

fn hook(id: u64, url: &str) -> Hook {
    Hook {
        id,
        url: url.to_owned(),
        content_type: "json".to_owned(),
        insecure: false,
        events: vec!["workflow_job".to_owned()],
        active: true,
    }
}

#[test]
fn there_is_one_hook_and_strangers_keep_theirs() {
    const URL: &str = "https://Farm.example:8443/hooks/lxdrunner";
    #[track_caller]
    fn check(urls: &[&str], plan: HookPlan, others: usize) {
        let hooks: Vec<Hook> = (1..).zip(urls).map(|(id, url)| hook(id, url)).collect();
        assert_eq!(hook_plan(&hooks, URL), plan, "{urls:?}");
        assert_eq!(other_hooks(&hooks, URL).len(), others, "{urls:?}");
    }
    let update = |id, twins: &[u64]| HookPlan::Update { id, twins: twins.to_vec() };
    check(&[], HookPlan::Create, 0);
    check(&["https://ci.example/hook", "not an address", ""], HookPlan::Create, 0);
    check(&[URL], update(1, &[]), 0);
    check(&["https://other.example/x", "http://farm.example:8443/hooks/lxdrunner/"], update(2, &[]), 0);
    // Another daemon of the same host.
    check(&["https://farm.example/hooks/lxdrunner"], HookPlan::Create, 1);
    check(&["https://farm.example/hooks/other"], HookPlan::Create, 0);
    check(&["https://farm.example.evil/hooks/lxdrunner"], HookPlan::Create, 1);
    check(&["http://farm.example:5000/hooks/lxdrunner", URL, URL, URL], update(2, &[3, 4]), 1);
    let usual = |url: &str| own_hooks(&[hook(1, "https://farm.example:443/hooks/lxdrunner")], url).len();
    assert_eq!(usual("http://farm.example/hooks/lxdrunner"), 1);
    assert_eq!(usual("https://farm.example:8443/hooks/lxdrunner"), 0);
}

/// `(guid, code, redelivery, minutes ago)`, newest first.
type Attempt = (&'static str, u16, bool, u64);

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn deliveries(attempts: &[Attempt]) -> Vec<Delivery> {
    let count = attempts.len() as u64;
    let one = |(n, (guid, code, redelivery, ago)): (u64, &Attempt)| Delivery {
        id: count - n,
        guid: (*guid).to_owned(),
        at: Some(Timestamp(NOW.0 - ago * 60_000)),
        redelivery: *redelivery,
        status: String::new(),
        code: *code,
        event: if guid.starts_with("ping") { "ping" } else { "workflow_job" }.to_owned(),
    };
    (0..).zip(attempts).map(one).collect()
}

#[test]
fn what_did_not_arrive_is_asked_for_once() {
    #[track_caller]
    fn check(attempts: &[Attempt], asked: &[&str], again: &[&str]) {
        let listed = deliveries(attempts);
        let asked = asked.iter().map(|&guid| guid.to_owned()).collect();
        let found: Vec<&str> = to_redeliver(&listed, &asked, NOW).iter().map(|one| one.guid.as_str()).collect();
        assert_eq!(found, again, "{attempts:?}");
    }
    check(&[], &[], &[]);
    check(&[("b", 202, false, 1), ("a", 200, false, 2)], &[], &[]);
    check(&[("c", 0, false, 1), ("b", 202, false, 2), ("a", 502, false, 3)], &[], &["a", "c"]);
    check(&[("c", 0, false, 1), ("a", 502, false, 3)], &["c"], &["a"]);
    // Asked for before our start: GitHub's list shows it, however it went.
    check(&[("a", 202, true, 1), ("a", 502, false, 3)], &[], &[]);
    check(&[("a", 502, true, 1), ("a", 502, false, 3)], &[], &[]);
    check(&[("a", 202, false, 1), ("a", 502, false, 3)], &[], &[]);
    // Twice the same attempt, as when the list moves while it is read.
    check(&[("a", 502, false, 3), ("a", 502, false, 3)], &[], &["a"]);
    // Refused for what it is, of no use, or too old.
    check(&[("a", 401, false, 1), ("b", 404, false, 1), ("c", 413, false, 1), ("d", 422, false, 1)], &[], &[]);
    check(&[("ping1", 502, false, 1), ("a", 502, false, 24 * 60), ("b", 503, false, 24 * 60 - 1)], &[], &["b"]);
    check(&[("a", 429, false, 1), ("b", 408, false, 2), ("c", 500, false, 3)], &[], &["c", "b", "a"]);
}

#[test]
fn older_pages_are_read_for_as_long_as_they_are_of_use() {
    #[track_caller]
    fn check(count: u64, code: u16, minutes: u64, since: Option<u64>, more: bool) {
        let listed: Vec<Delivery> = (0..count).flat_map(|_| deliveries(&[("a", code, false, minutes)])).collect();
        let since = since.map(|ago| Timestamp(NOW.0 - ago * 60_000));
        assert_eq!(reaches_back(&listed, since, NOW, 10), more, "{count} {code} {minutes} {since:?}");
    }
    check(0, 202, 1, None, false);
    check(100, 202, 1, None, false);
    check(100, 502, 1, None, true);
    check(100, 502, 24 * 60, None, false);
    check(1000, 502, 1, None, false);
    check(100, 202, 1, Some(10), true);
    check(100, 502, 11, Some(10), false);
    check(1000, 202, 1, Some(10), false);
}

#[test]
fn why_github_does_not_reach_us_is_told_with_the_fix() {
    #[track_caller]
    fn check(code: u16, part: Option<&str>) {
        let one = Delivery { status: "its words".to_owned(), ..deliveries(&[("a", code, false, 1)]).remove(0) };
        let told = unreachable(&one, "https://farm.example/hooks/lxdrunner");
        assert_eq!(told.is_some(), part.is_some(), "{told:?}");
        assert!(told.clone().unwrap_or_default().contains(part.unwrap_or_default()), "{told:?}");
    }
    check(202, None);
    check(401, Some("the secret of the webhook is not hooksecret"));
    check(0, Some("GitHub cannot reach https://farm.example/hooks/lxdrunner: its words; does its name"));
    check(404, Some("/hooks/lxdrunner, does the proxy"));
    check(503, Some("is it running"));
    check(500, Some("Recent Deliveries"));
}

fn class(labels: &[&str]) -> Class {
    Class { labels: labels.iter().collect::<Labels>(), ..crate::world::testkit::class("c", &[], 1) }
}

fn runner(id: u64, name: &str, online: bool) -> Runner {
    Runner { id: RunnerId(id), name: name.to_owned(), online, busy: false, labels: Labels::default() }
}

#[test]
fn each_class_has_one_placeholder_that_is_fresh() {
    let classes = [class(&["a"]), class(&["b"])];
    let (a, b) = (placeholder_name(&classes[0], NOW), placeholder_name(&classes[1], NOW));
    let later = NOW.after(Duration::from_secs(PLACEHOLDER_AGE));
    #[track_caller]
    fn check(classes: &[Class], runners: &[Runner], now: Timestamp, register: &[&str], remove: &[u64]) {
        let plan = placeholders(classes, runners, now);
        let names: Vec<&str> = plan.register.iter().map(|(name, _)| name.as_str()).collect();
        let ids: Vec<u64> = plan.remove.iter().map(|id| id.0).collect();
        assert_eq!((names.as_slice(), ids.as_slice()), (register, remove));
    }
    check(&classes, &[], NOW, &[&a, &b], &[]);
    check(&classes, &[runner(1, &a, false)], NOW, &[&b], &[]);
    let both = [runner(1, &a, false), runner(2, &b, false), runner(3, "lxdrunner-7-1", false)];
    check(&classes, &both, NOW, &[], &[]);
    // The old one stays until the new one is there.
    let (c, d) = (placeholder_name(&classes[0], later), placeholder_name(&classes[1], later));
    check(&classes, &both, later, &[&c, &d], &[]);
    let renewed = [both.as_slice(), &[runner(4, &c, false), runner(5, &d, false)]].concat();
    check(&classes, &renewed, later, &[], &[1, 2]);
    let busy = [runner(1, &a, true), runner(4, &c, false), runner(5, &d, false)];
    check(&classes, &busy, later, &[], &[]);
    // A clock that is behind takes nothing away.
    check(&classes, &renewed, NOW, &[], &[]);
    check(&classes[..1], &renewed, later, &[], &[1]);
}

#[test]
fn a_placeholders_name_is_no_instances_and_no_strangers() {
    let name = placeholder_name(&class(&["a"]), NOW);
    assert!(name.len() < 64 && is_placeholder(&name), "{name}");
    assert_eq!(name, placeholder_name(&class(&["A"]), NOW), "every daemon that serves these labels has the same");
    for prefix in ["placeholder", "lxdrunner", "placeholder-x"] {
        assert_eq!(crate::world::parse_name(prefix, &name), None);
    }
    for other in
        ["placeholder", "placeholder-", "placeholder-1-2", "placeholder-gpu-1", "my-runner", "placeholder-x123-1"]
    {
        assert!(!is_placeholder(other), "{other}");
    }
}
