//! Launches, bakes and standbys: the real steps, taken against the models.

use lxdrunner::github::Deletion;
use lxdrunner::model::{ClassId, InstanceType, Phase, RunnerId, Scope};
use lxdrunner::steps::making::{self, Answer, LookPurpose, MakeKind, Making};
use lxdrunner::steps::{self, Cause, Fault};
use lxdrunner::world::{Action, Launch, Outcome};

use crate::execution::{Execution, Luck, Next, Step};
use crate::stage::{Ev, Inst, Stage};

/// True from the moment that the instance is this making's.
pub fn has_it_in_hand(step: &making::Step) -> bool {
    use making::Step::{BeginRegister, Claim, Create, Look, OpenFiles, ThawUnclaimed};

    let before = matches!(step, Create | BeginRegister(_) | OpenFiles | Claim { .. } | ThawUnclaimed);
    !before && !matches!(step, Look(LookPurpose::ToClaim | LookPurpose::Whose))
}

/// How long the step takes before it acts, in milliseconds; `None` for what acts on nothing.
fn duration(what: &MakeKind, step: &making::Step) -> Option<(u64, u64)> {
    use making::Step::*;

    Some(match step {
        Arm | OpenFiles | KeepLogs { .. } | FindCause => return None,
        Create | Look(_) | Armed | HandOver => (5, 200),
        Start => (50, 3000),
        BeginRegister(_) => (1, 10),
        Credentials => (5, 3000),
        RegisterAgain(_) => (400, 700),
        Started => (100, 2000),
        SetUp if matches!(what, MakeKind::Template(_)) => (1000, 60_000),
        SetUp => (500, 8000),
        Claim { .. } | Thaw | ThawUnclaimed | SetClock | NoteRunner(_) => (5, 300),
        Settle => (100, 20_000),
        NoteStarted(_) | Finish { .. } => (20, 500),
        Seal | Freeze => (50, 2000),
        Publish => (1000, 30_000),
        TakeBack(..) => (50, 1000),
        Drop(_) => (100, 2000),
    })
}

pub fn what(action: &Action) -> MakeKind {
    match action {
        Action::Launch(Launch { scope, from, .. }) => MakeKind::Runner { scope: scope.clone(), from: from.clone() },
        Action::Bake { form, .. } => MakeKind::Template(*form),
        Action::PrepareStandby { .. } => MakeKind::Standby,
        other => unreachable!("{other:?}"),
    }
}

fn class_of(action: &Action) -> ClassId {
    match action {
        Action::Launch(Launch { class, .. }) | Action::Bake { class, .. } | Action::PrepareStandby { class, .. } => {
            *class
        }
        other => unreachable!("{other:?}"),
    }
}

fn failed(reason: &str) -> Answer {
    Answer::Failed { unreachable: false, reason: reason.to_owned() }
}

impl Stage {
    pub fn begin_making(&self, action: &Action) -> Step {
        let class = self.config.class(class_of(action));
        Step::Make(Box::new(Making::new(what(action), class, &self.config.prefix)), None)
    }

    /// One step, and what the machine makes of what came.
    pub fn make(
        &mut self,
        e: &mut Execution,
        lxd: usize,
        name: &str,
        mut making: Box<Making>,
        mut heard: Option<Answer>,
    ) -> Next {
        let what = what(&e.action);
        e.slow = e.slow.saturating_sub(1);
        if e.slow > 0 && self.fate.is_none() {
            self.note_progress(e, lxd, name);
            return Next::Go(Box::new(Step::Make(making, heard)), 20_000, 35_000);
        }
        loop {
            let came = self.make_step(e, lxd, name, (&what, making.step()), &mut heard);
            match making.next(came) {
                steps::Next::End(outcome) => return Next::End(outcome),
                steps::Next::Take(step) => {
                    if step == making::Step::SetUp && self.fault(self.faults.slow) {
                        e.slow = self.rng.range(4, 16);
                    }
                    if let Some((low, high)) = duration(&what, &step) {
                        return Next::Go(Box::new(Step::Make(making, heard)), low, high);
                    }
                }
            }
        }
    }

    /// What takes long is seen to make progress by who makes it.
    fn note_progress(&mut self, e: &Execution, lxd: usize, name: &str) {
        let (owner, now) = (Some((e.daemon, e.life)), self.now);
        if let Some(inst) = self.lxd[lxd].get_mut(name).filter(|inst| inst.owner == owner) {
            (inst.noted, inst.version) = (now, inst.version + 1);
        }
    }

    fn make_step(
        &mut self,
        e: &mut Execution,
        lxd: usize,
        name: &str,
        (what, step): (&MakeKind, &making::Step),
        heard: &mut Option<Answer>,
    ) -> Answer {
        use making::Step::*;

        // What acts on GitHub, or on nothing.
        match step {
            BeginRegister(_) => {
                // GitHub may answer at once, or only when it is waited for.
                if self.rng.chance(500) {
                    *heard = Some(self.register(e, name));
                }
                return Answer::Done;
            }
            Credentials | RegisterAgain(_) => return heard.take().unwrap_or_else(|| self.register(e, name)),
            TakeBack(_, runner) => {
                return match self.delete_runner(e.daemon, runner.0, None) {
                    Ok(true) => Answer::Deregistered(Deletion::Deleted),
                    Ok(false) => Answer::Deregistered(Deletion::Busy),
                    Err(()) => Answer::Refused("502".to_owned()),
                };
            }
            FindCause if self.pool_full[lxd] => {
                let text = "the pool is full".to_owned();
                return Answer::Cause(Some(Cause { fault: Fault::Storage, text }));
            }
            FindCause => return Answer::Cause(None),
            Arm | OpenFiles | KeepLogs { .. } => return Answer::Done,
            Drop(why) => {
                return match self.drop_ours(e, lxd, name, *why) {
                    Outcome::RemoveFailed { reason } => failed(&reason),
                    _ => Answer::Done,
                };
            }
            _ => {}
        }
        let luck = self.luck(Some(lxd));
        let unreachable = !self.lxd_up[lxd] || self.rng.chance(500);
        let no_answer = match step {
            Claim { .. } if unreachable => Answer::Unsure("no answer".to_owned()),
            _ => Answer::Failed { unreachable, reason: "no answer".to_owned() },
        };
        if matches!(luck, Luck::Bad) {
            return no_answer;
        }
        let answer = match step {
            Create => self.create(e, lxd, name, what),
            Look(_) => match self.lxd[lxd].get(name) {
                Some(inst) => Answer::Found(self.found(e, inst)),
                None => Answer::Gone,
            },
            SetUp if self.fault(self.faults.step / 6) => Answer::NoPackage("it is gone".to_owned()),
            SetUp | Armed if self.pool_full[lxd] && self.rng.chance(500) => Answer::NoSpace("it is full".to_owned()),
            Armed if self.fault(self.faults.step / 3) => Answer::NoNetwork("no address".to_owned()),
            SetUp if matches!(what, MakeKind::Template(_)) && self.fault(self.faults.bake) => {
                failed("the set-up failed")
            }
            Claim { etag } => self.claim(e, lxd, name, etag),
            HandOver => self.hand_over(e, lxd, name),
            ThawUnclaimed => self.thaw_unclaimed(lxd, name),
            SetUp | Armed if self.fault(self.faults.step / 6) => Answer::NoNetwork("no answer".to_owned()),
            step => self.change(e, lxd, name, (what, step)),
        };
        match step {
            _ if matches!(luck, Luck::Good) => answer,
            // It is looked for by its name.
            Publish if self.lxd_up[lxd] && self.rng.chance(500) => answer,
            _ => no_answer,
        }
    }

    /// Asks GitHub for a runner's credentials.
    fn register(&mut self, e: &mut Execution, name: &str) -> Answer {
        let Action::Launch(Launch { scope, class, .. }) = &e.action else { unreachable!("{:?}", e.action) };
        let luck = self.luck(None);
        let refused = Answer::Refused("502".to_owned());
        match luck {
            // It did not come to GitHub, or GitHub answered that it will not.
            Luck::Bad if self.rng.chance(500) => Answer::NotRegistered("403".to_owned()),
            Luck::Bad => refused,
            _ if self.token => Answer::Registered(None),
            _ if self.github.named(scope, name).is_some() => Answer::NameTaken,
            luck => {
                let id = self.registration(e.daemon, scope, name, *class);
                match luck {
                    Luck::Good => {
                        e.registered = Some(id);
                        Answer::Registered(Some(RunnerId(id)))
                    }
                    _ => refused,
                }
            }
        }
    }

    fn registration(&mut self, daemon: usize, scope: &Scope, name: &str, class: ClassId) -> u64 {
        let labels = self.config.class(class).labels.clone();
        let id = self.github.register(scope, name, &labels, Some(daemon), self.now);
        self.github.runner(id).mistaken = self.fault(self.faults.lie);
        self.tell(format!("registration {name} ({id}) made by {daemon}"));
        id
    }

    pub fn create(&mut self, e: &Execution, lxd: usize, name: &str, what: &MakeKind) -> Answer {
        let template = |i: &Inst| i.owner.is_some() && i.phase == Phase::Template && !i.running;
        if let Some(source) = e.action.copies()
            && !self.lxd[lxd].get(source).is_some_and(template)
        {
            return failed("there is no such template");
        }
        if self.lxd[lxd].contains_key(name) {
            return failed("the name is taken");
        }
        let (scope, job, recipe) = match &e.action {
            Action::Launch(Launch { scope, job, .. }) => (Some(scope.clone()), *job, None),
            Action::Bake { recipe, .. } | Action::PrepareStandby { recipe, .. } => (None, None, Some(recipe.clone())),
            other => unreachable!("{other:?}"),
        };
        let inst = Inst {
            owner: Some((e.daemon, e.life)),
            alias: None,
            class: self.config.class(class_of(&e.action)).name.clone(),
            scope,
            job,
            phase: what.phases().0,
            recipe,
            runner_key: None,
            running: false,
            frozen: false,
            version: 0,
            made: self.now,
            noted: 0,
            process: None,
            ended: false,
            hangs_until: 0,
            autostart: steps::default_config(false).get("boot.autostart").is_none_or(|starts| starts != "false"),
            half_written: false,
        };
        self.lxd[lxd].insert(name.to_owned(), inst);
        Answer::Done
    }

    fn claim(&mut self, e: &Execution, lxd: usize, name: &str, etag: &str) -> Answer {
        let Action::Launch(Launch { scope, job, .. }) = &e.action else { unreachable!("{:?}", e.action) };
        self.check_agent(lxd, name, "claimed");
        let Some(inst) = self.lxd[lxd].get_mut(name) else { return Answer::Gone };
        if inst.version.to_string() != etag {
            return Answer::Changed;
        }
        let honest = inst.phase == Phase::Standby && inst.owner.is_some() && inst.scope.is_none();
        inst.owner = Some((e.daemon, e.life));
        inst.phase = Phase::Provisioning;
        inst.scope = Some(scope.clone());
        inst.job = *job;
        inst.version += 1;
        if !honest {
            self.fail(&format!("{name} was claimed, and is no standby that is ours"));
        }
        self.tell(format!("daemon {} claims {name}", e.daemon));
        Answer::Done
    }

    fn is_virtual_machine(&self, inst: &Inst) -> bool {
        let class = self.config.classes.iter().find(|class| class.name == inst.class);
        class.is_some_and(|class| class.kind == InstanceType::VirtualMachine)
    }

    /// LXD waits in vain for the agent of a virtual machine that is frozen, and then fails, though the keys are changed.
    fn check_agent(&self, lxd: usize, name: &str, what: &str) {
        if self.lxd[lxd].get(name).is_some_and(|inst| inst.frozen && self.is_virtual_machine(inst)) {
            self.fail(&format!("virtual machine {name} was {what} while it was frozen"));
        }
    }

    /// Whoever is first lets it go on, and nobody has claimed it yet.
    fn thaw_unclaimed(&mut self, lxd: usize, name: &str) -> Answer {
        match self.lxd[lxd].get_mut(name) {
            Some(inst) if inst.frozen => {
                inst.frozen = false;
                Answer::Done
            }
            Some(_) => failed("it is running already"),
            None => failed("not found"),
        }
    }

    /// A step that changes the instance; it must be this execution's own.
    fn change(&mut self, e: &Execution, lxd: usize, name: &str, (what, step): (&MakeKind, &making::Step)) -> Answer {
        use making::Step::*;

        if matches!(step, NoteRunner(_) | NoteStarted(_) | Finish { .. }) {
            self.check_agent(lxd, name, "noted on");
        }
        let Some(inst) = self.lxd[lxd].get(name) else { return failed("not found") };
        let virtual_machine = self.is_virtual_machine(inst);
        let Some(inst) = self.lxd[lxd].get_mut(name) else { return failed("not found") };
        if inst.owner.is_some_and(|owner| owner != (e.daemon, e.life)) {
            // What runs in an instance ends with it.
            if matches!(step, Started | SetUp | Armed | Settle) {
                return failed("it stopped meanwhile");
            }
            // It is a standby already, and somebody removes it.
            if matches!(step, Freeze) && virtual_machine {
                return failed("not found");
            }
            // The note is written without a look, for speed; whoever has the name by now writes its own over it before its
            // runner starts.
            if !matches!(step, NoteRunner(_)) {
                self.fail(&format!("daemon {} does {step:?} to {name}, which is not its own", e.daemon));
            }
        }
        match step {
            Start if inst.half_written => return failed("it is half-written"),
            Start => inst.running = true,
            Started | SetUp | Armed | Settle if !inst.running => return failed("it does not run"),
            Started | SetUp | Armed | Settle | SetClock => return Answer::Done,
            Thaw => inst.frozen = false,
            Freeze => inst.frozen = true,
            Seal => inst.running = false,
            Publish => return self.publish(lxd, name),
            NoteRunner(runner) => inst.runner_key = Some(*runner),
            NoteStarted(runner) => {
                inst.phase = Phase::Started;
                inst.runner_key = runner.or(inst.runner_key);
            }
            Finish { etag } if *etag != inst.version.to_string() => return Answer::Changed,
            Finish { .. } => inst.phase = what.phases().1,
            other => unreachable!("{other:?}"),
        }
        inst.version += 1;
        if let Finish { .. } = step {
            let phase = inst.phase;
            self.tell(format!("{name} is a {phase:?}"));
        }
        Answer::Done
    }

    /// The credentials are in it, and the runner starts.
    fn hand_over(&mut self, e: &Execution, lxd: usize, name: &str) -> Answer {
        let Action::Launch(Launch { scope, class, .. }) = &e.action else { unreachable!("{:?}", e.action) };
        let Some(inst) = self.lxd[lxd].get(name).filter(|i| i.running) else { return failed("it is not armed") };
        if inst.owner != Some((e.daemon, e.life)) || inst.frozen {
            self.fail(&format!("daemon {} starts a runner in {name}, which is not its own", e.daemon));
        }
        let runner = match (self.token, e.registered) {
            // `config.sh` fails where the name is taken, and the instance powers off.
            (true, _) if self.github.named(scope, name).is_some() => None,
            (true, _) => Some(self.registration(e.daemon, scope, name, *class)),
            (false, registered) => registered,
        };
        self.lxd[lxd].get_mut(name).unwrap().process = runner.or(Some(0));
        if runner.is_none() {
            self.after(300, 6000, Ev::PowerOff { lxd, name: name.to_owned(), runner: 0 });
        }
        self.tell(format!("runner process of {name} starts ({runner:?})"));
        if let Some(runner) = runner.filter(|_| !self.fault(self.faults.sick_runner)) {
            self.after(300, 6000, Ev::Online { runner });
        }
        Answer::Done
    }
}
