use super::*;

const PERCENT: u8 = 20;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What one answer says.
#[derive(Clone, Copy)]
enum Came {
    Well,
    /// With so many left of 5000, for so many seconds.
    Left(u64, u64),
    Unchanged,
    Failed,
    Nothing,
    For(u64),
    Somehow,
    Used(u64),
}

fn settlement(came: Came) -> Settlement {
    let window = |remaining, resets_in: u64| {
        let resource = "core".to_owned();
        Some(WindowSeen { resource, limit: 5000, remaining, resets_in: seconds(resets_in) })
    };
    match came {
        Came::Well => Settlement { status: Some(200), window: window(4000, 3000), told: None },
        Came::Left(remaining, resets) => {
            Settlement { status: Some(200), window: window(remaining, resets), told: None }
        }
        Came::Unchanged => Settlement { status: Some(304), window: window(4000, 3000), told: None },
        Came::Failed => Settlement { status: Some(502), ..Default::default() },
        Came::Nothing => Settlement::default(),
        Came::For(n) => Settlement { status: Some(403), window: None, told: Some(Told::For(seconds(n))) },
        Came::Somehow => Settlement { status: Some(403), window: None, told: Some(Told::Somehow) },
        Came::Used(n) => Settlement { status: Some(403), window: window(0, n), told: Some(Told::Resource(seconds(n))) },
    }
}

/// After these answers (second, purpose, answer), how long does a request at `now` wait?
#[track_caller]
fn check(story: &[(u64, Purpose, Came)], now: u64, purpose: Purpose, wait: Option<u64>) {
    let mut ledger = Ledger::default();
    for (at, purpose, came) in story {
        // What is tried too soon is not sent, and so not settled.
        if ledger.admit(*purpose, seconds(*at), PERCENT) == Verdict::Go {
            ledger.settle(*purpose, seconds(*at), &settlement(*came), 0);
        }
    }
    let found = ledger.wait(purpose, seconds(now), PERCENT).map(|(until, _)| (until - seconds(now)).as_secs());
    assert_eq!(found, wait);
}

#[test]
fn what_github_says_is_kept_to() {
    use Came::*;
    use Purpose::*;
    check(&[(0, Ask, Well)], 1, Ask, None);
    check(&[(0, Ask, For(7))], 1, Ask, Some(6));
    check(&[(0, Ask, For(7))], 1, Register, Some(6));
    check(&[(0, Ask, For(7))], 7, Register, None);
    // Nothing shortens it.
    check(&[(0, Ask, For(30)), (1, Ask, For(2))], 3, Ask, Some(27));
    check(&[(0, Ask, For(0))], 0, Ask, Some(1));
    check(&[(0, Ask, For(99_999_999))], 0, Ask, Some(3600));
    // Without a time it is a minute, and longer each time.
    check(&[(0, Ask, Somehow)], 0, Register, Some(60));
    check(&[(0, Ask, Somehow), (60, Ask, Somehow)], 60, Register, Some(120));
    check(&[(0, Ask, Somehow), (60, Ask, Well), (61, Ask, Somehow)], 61, Register, Some(60));
    // The primary limit is one resource's.
    check(&[(0, Register, Left(9, 3000)), (1, Register, Used(50))], 1, Register, Some(50));
}

#[test]
fn a_resource_that_is_used_up_stops_what_counts_against_it_alone() {
    let mut ledger = Ledger::default();
    let window = |resource: &str, remaining| {
        Some(WindowSeen { resource: resource.to_owned(), limit: 5000, remaining, resets_in: seconds(100) })
    };
    ledger.admit(Purpose::Register, seconds(0), PERCENT);
    let came = Settlement { status: Some(201), window: window("actions_runner_registration", 9), told: None };
    ledger.settle(Purpose::Register, seconds(0), &came, 0);
    ledger.admit(Purpose::Ask, seconds(0), PERCENT);
    let came = Settlement { status: Some(403), window: window("core", 0), told: Some(Told::Resource(seconds(100))) };
    assert_eq!(ledger.settle(Purpose::Ask, seconds(0), &came, 0), Some(seconds(100)));
    assert_eq!(ledger.wait(Purpose::Register, seconds(1), PERCENT), None);
    assert_eq!(ledger.wait(Purpose::Ask, seconds(1), PERCENT).unwrap().0, seconds(100));
}

#[test]
fn the_last_of_the_hour_is_kept_for_registrations() {
    use Came::*;
    use Purpose::*;
    let check = |left: u64, purpose, wait| {
        check(
            &[(0, List, Left(left, 900)), (0, Ask, Left(left, 900)), (0, Register, Left(left, 900))],
            1,
            purpose,
            wait,
        )
    };
    check(501, List, None);
    check(500, List, Some(899));
    check(500, Ask, None);
    check(100, Ask, Some(899));
    check(100, Register, None);
    check(0, Register, Some(899));
}

#[test]
fn listings_have_a_share_of_any_hour() {
    let mut ledger = Ledger::default();
    let list = |ledger: &mut Ledger, at: u64, came: Came| {
        let verdict = ledger.admit(Purpose::List, seconds(at), PERCENT);
        if verdict == Verdict::Go {
            ledger.settle(Purpose::List, seconds(at), &settlement(came), 0);
        }
        verdict
    };
    for n in 0..2000 {
        assert_eq!(list(&mut ledger, n / 10, Came::Unchanged), Verdict::Go, "what is unchanged costs nothing");
    }
    for n in 0..1000 {
        assert_eq!(list(&mut ledger, 300 + n / 10, Came::Well), Verdict::Go);
    }
    assert_eq!(ledger.listings(seconds(400), PERCENT), Some((0, 1000)));
    let why = Why::Share { spent: 1000, share: 1000, limit: 5000 };
    assert_eq!(list(&mut ledger, 400, Came::Well), Verdict::Wait { until: seconds(3900), why });
    assert_eq!(ledger.wait(Purpose::Ask, seconds(400), PERCENT), None);
    assert_eq!(list(&mut ledger, 3899, Came::Well), list(&mut ledger, 400, Came::Well));
    assert_eq!(list(&mut ledger, 3900, Came::Well), Verdict::Go);
}

#[test]
fn without_limits_listings_are_not_counted() {
    let mut ledger = Ledger::default();
    for _ in 0..5000 {
        assert_eq!(ledger.admit(Purpose::List, seconds(1), 1), Verdict::Go);
        ledger.settle(Purpose::List, seconds(1), &Settlement { status: Some(200), ..Default::default() }, 0);
    }
    assert_eq!(ledger.listings(seconds(1), 1), None);
}

#[test]
fn an_outage_is_left_alone_for_longer_and_longer() {
    use Came::*;
    use Purpose::*;
    check(&[(0, Ask, Failed), (0, Ask, Failed)], 0, Ask, None);
    check(&[(0, Ask, Failed), (0, Ask, Failed), (0, Ask, Failed)], 0, Register, Some(1));
    let mut story = vec![(0, Ask, Failed), (0, Ask, Failed), (0, Ask, Failed), (1, Ask, Failed)];
    check(&story, 1, Ask, Some(2));
    // A link that is down says nothing of GitHub; an answer ends it.
    story.push((3, Ask, Nothing));
    story.push((3, Ask, Failed));
    check(&story, 3, Ask, Some(4));
    story.push((7, Ask, Well));
    story.push((7, Ask, Failed));
    check(&story, 7, Ask, None);
    let long: Vec<_> = (0..100).map(|n| (n * 100, Ask, Failed)).collect();
    check(&long, 9900, Ask, Some(60));
}

#[test]
fn only_so_many_are_under_way_and_registrations_go_first() {
    let mut ledger = Ledger::default();
    let now = seconds(0);
    let admit = |ledger: &mut Ledger, purpose| ledger.admit(purpose, now, PERCENT);
    for _ in 0..LISTINGS_AT_ONCE {
        assert_eq!(admit(&mut ledger, Purpose::List), Verdict::Go);
    }
    assert_eq!(admit(&mut ledger, Purpose::List), Verdict::Full);
    for _ in LISTINGS_AT_ONCE..AT_ONCE {
        assert_eq!(admit(&mut ledger, Purpose::Ask), Verdict::Go);
    }
    assert_eq!(admit(&mut ledger, Purpose::Register), Verdict::Full);
    ledger.waits(Purpose::Register, true);
    ledger.settle(Purpose::List, now, &settlement(Came::Well), 0);
    assert_eq!(admit(&mut ledger, Purpose::List), Verdict::Full, "a registration waits");
    assert_eq!(admit(&mut ledger, Purpose::Remove), Verdict::Full);
    assert_eq!(admit(&mut ledger, Purpose::Register), Verdict::Go);
    ledger.waits(Purpose::Register, false);
    ledger.settle(Purpose::Ask, now, &settlement(Came::Nothing), 0);
    assert_eq!(admit(&mut ledger, Purpose::List), Verdict::Go);
}

#[test]
fn the_die_only_makes_it_longer() {
    #[track_caller]
    fn check(die: u32, millis: u128) {
        let mut ledger = Ledger::default();
        ledger.admit(Purpose::Ask, seconds(0), PERCENT);
        let told = ledger.settle(Purpose::Ask, seconds(0), &settlement(Came::For(10)), die);
        assert_eq!(told, Some(seconds(10)));
        assert_eq!(ledger.wait(Purpose::Ask, seconds(0), PERCENT).unwrap().0.as_millis(), millis);
    }
    check(0, 10_000);
    check(500, 10_500);
    check(999, 10_999);
    check(u32::MAX, 11_000);
}

#[test]
fn answers_that_overtake_each_other_do_not_give_back() {
    let mut ledger = Ledger::default();
    for (at, left, resets) in [(0, 10, 100), (1, 12, 99), (2, 9, 97)] {
        ledger.admit(Purpose::Ask, seconds(at), PERCENT);
        ledger.settle(Purpose::Ask, seconds(at), &settlement(Came::Left(left, resets)), 0);
    }
    assert_eq!(ledger.left(seconds(3)), Some((9, 5000)));
    assert_eq!(ledger.left(seconds(200)), Some((5000, 5000)));
}
