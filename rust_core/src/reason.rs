//! Reason codes: one number for everything that can be refused, dropped, halted or damaged.
//!
//! Why: a message can change, a number cannot; alerts, logs, records, docs and tests name it.
//!
//! Invariants:
//! 1. 0 is `Unset`; approval is a verdict of its own, so a zeroed record approves nothing.
//! 2. Families: 1xx market data, 2xx risk, 3xx orders and gateway, 4xx broker, 5xx config and
//!    promotion, 6xx storage, 7xx research gates, 9xx our own bugs.
//! 3. Append only; a retired code keeps its number.
//!
//! It does not decide anything. Operator's page: `docs/reason-codes.md` (generated from here).

macro_rules! reason_codes {
    ($( $name:ident = $code:literal, $meaning:literal, $seen:literal, $action:literal; )*) => {
        /// Why something was refused, dropped, halted or found damaged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum ReasonCode {
            /// No reason: never an approval.
            Unset = 0,
            $( #[doc = $meaning] $name = $code, )*
        }

        /// One row of the generated table.
        #[derive(Debug, Clone, Copy)]
        pub struct ReasonRow {
            /// The number.
            pub code: u16,
            /// Name in Rust (CamelCase).
            pub name: &'static str,
            /// What it means.
            pub meaning: &'static str,
            /// When it is seen.
            pub seen_when: &'static str,
            /// What the operator does.
            pub operator_does: &'static str,
        }

        /// All codes in order.
        pub const REASON_ROWS: &[ReasonRow] = &[
            $( ReasonRow { code: $code, name: stringify!($name), meaning: $meaning, seen_when: $seen, operator_does: $action }, )*
        ];

        impl ReasonCode {
            /// The code of a number, if this version knows it.
            #[must_use]
            pub fn from_code(code: u16) -> Option<Self> {
                match code { 0 => Some(Self::Unset), $( $code => Some(Self::$name), )* _ => None }
            }
        }
    };
}

reason_codes! {
    BookCrossed = 101, "best bid is at or above best ask", "a snapshot in the feed", "nothing if rare; check the feed if it lasts";
    BookSideEmpty = 102, "one side of the book has no level", "thin markets, session edges", "nothing; no order is placed on such a book";
    BookStale = 103, "the last book is older than the limit", "feed silent or slow", "check the feed; orders resume by themselves";
    SimulatedMatch = 104, "pre-open trial match, not a tradable price", "before the session opens", "nothing";
    PriceNotPositive = 105, "a price was zero or negative", "malformed feed row", "check the source; the row was dropped and counted";
    QtyNotPositive = 106, "a quantity was zero or negative", "malformed feed row", "check the source; the row was dropped and counted";
    PriceOffTickGrid = 107, "a price is not a multiple of the tick size", "wrong instrument settings or malformed row", "check config/instruments";
    LevelsUnordered = 108, "depth levels are not in price order", "malformed feed row", "check the source; the row was dropped and counted";
    DuplicateRow = 109, "the same source row came twice", "recordings joined twice", "nothing; the copy was dropped and counted";
    OutOfOrderRow = 110, "time went back in a source", "recordings from several streams", "nothing if rare; the row was re-ordered or dropped as the report says";
    ValueOutOfRange = 111, "a price or quantity does not fit Decimal(18, 8)", "malformed feed row", "check the source; the row was dropped and counted";
    UnknownInstrument = 112, "the symbol is in no instruments file", "a new recording or contract", "add it to config/instruments as the message says";
    SchemaMismatch = 113, "a file lacks a column, or its type is wrong", "a recording of another format", "compare the file with docs/formats.md";
    FileDamaged = 114, "a recording could not be read to its end", "truncated download", "fetch the file again; nothing of it was used";
    OutsideSession = 115, "the row lies outside every trading session", "pre-open and post-close rows", "nothing; the row was dropped and counted";
    SequenceGap = 116, "update numbers of a depth stream are not contiguous", "lost websocket messages", "nothing; the book starts over at the next snapshot";
    QtyOffLotGrid = 117, "a quantity is not a multiple of the lot size", "wrong instrument settings or malformed row", "check config/instruments";
    MalformedLine = 118, "a line of a raw recording is not what its format says", "an interrupted or damaged recording", "nothing if rare; the line was dropped and counted";
    NotBookMatch = 119, "a print that no order in the book made: insurance fund, deleveraging", "liquidations on crypto venues", "nothing; the row was dropped and counted";
    QuoteSchemaMismatch = 120, "the SDK's quote classes or version are not those the normaliser was written for", "another SDK version, an object of another class", "install the pinned SDK; its market data is refused until then";
    FieldUnreadable = 121, "reading an attribute of an SDK object failed", "a payload with a wrong type marker makes the SDK panic", "nothing if rare; the object was dropped and counted";
    FieldTypeWrong = 122, "an attribute of an SDK object has another type than the schema says", "an SDK that changed while running", "check the SDK's version; the object was dropped and counted";
    ExchangeDateInvalid = 123, "the exchange date is the SDK's stand-in for one it could not read (year 2000)", "malformed payload", "nothing if rare; the object was dropped and counted";
    ExchangeTimeInvalid = 124, "the exchange time is exactly midnight: the SDK's stand-in for one it could not read", "malformed payload", "nothing if rare; the object was dropped and counted";
    ExchangeTimeAhead = 125, "exchange time lies after receive time by more than the limit", "our clock is behind, or a wrong date", "check the host's clock";
    ExchangeTimeBehind = 126, "exchange time lies before receive time by more than the limit", "a resent snapshot, a slow feed, our clock is ahead", "check the host's clock and the connection if it lasts";
    LevelCountWrong = 127, "a book side does not have exactly five entries", "malformed payload", "nothing if rare; the object was dropped and counted";
    PriceNotExact = 128, "a price is no finite number of at most eight decimals", "malformed payload", "nothing if rare; the object was dropped and counted";
    TickTypeInvalid = 129, "the aggressor mark of a print is none of 0, 1 and 2", "malformed payload", "nothing if rare; the object was dropped and counted";
    TotalVolumeGap = 130, "the day's volume rose by more than this print's: prints are missing before it", "lost messages, a reconnect", "nothing if rare; the print was kept and windows start over";
    TotalVolumeBroken = 131, "the day's volume rose by less than this print's", "malformed payload", "nothing if rare; the object was dropped and counted";
    BookTotalMismatch = 132, "a side's total is not the sum of its five quantities", "malformed payload, or the exchange counts deeper levels", "if it lasts, compare with the exchange and set on_total_mismatch to note";

    KillSwitchOn = 201, "trading is halted", "after halt, a loss limit or a storage failure", "find the cause, then resume in two steps";
    ReduceOnlyOn = 202, "only orders that reduce the position are allowed", "withdrawal, session end, operator command", "nothing, or lift it with resume";
    OrderQtyAboveLimit = 203, "order quantity above its limit", "strategy or limits wrong", "check the alpha's limits";
    PositionAboveLimit = 204, "position with all open and unknown orders filled would exceed the limit", "normal at the limit", "nothing";
    NotionalAboveLimit = 205, "gross notional above the account's limit", "too much size for the account", "check the limits";
    PriceOutsideCollar = 206, "price too far from the mid", "thin book or wrong price", "nothing if rare";
    PriceOutsideDailyLimit = 207, "price beyond limit up or limit down", "limit days", "nothing";
    OrderPriceOffTick = 208, "order price is not on the tick grid", "a bug in a template", "report it";
    OrderRateAboveLimit = 209, "order budget of the window is used up; the rest is kept for cancels", "bursts", "nothing; raise the limit only within the broker's";
    DuplicateIntent = 210, "this intent id was already decided", "a replayed or repeated intent", "nothing";
    DailyLossReached = 211, "loss of the day reached its limit", "losing day", "review; the alpha stays halted for the session";
    DrawdownReached = 212, "drawdown from the session's peak reached its limit", "losing streak", "review; the alpha stays halted for the session";
    SessionNotOpen = 213, "the session phase does not allow this order", "before open, after close, close-only", "nothing";
    SignalNotFinite = 214, "the alpha's value is NaN or infinite", "warm-up, gaps, division by zero", "nothing in warm-up; else check the expression";
    ReferenceMissing = 215, "reference data for a check is missing", "no limit prices or no book yet", "provide it; missing data rejects";
    SelfTrade = 216, "the order would trade against our own resting order", "two alphas on one instrument", "nothing";
    RepeatedOrder = 217, "too many equal orders in a short window", "a looping strategy", "review the alpha";
    WeightBelowOneLot = 218, "weight times full size is less than one lot", "a small canary weight", "raise full size or weight";
    ArithmeticOverflow = 219, "a money computation left its range", "absurd inputs", "report it";
    RejectRateAboveLimit = 220, "too many refusals in a short window", "broker or limits trouble", "find the cause; the breaker closes by itself";
    NetNotionalAboveLimit = 221, "net notional of the account above its limit on this side", "several alphas leaning one way", "check the limits";
    AccountPositionAboveLimit = 222, "the account's position in this instrument, all alphas, open and unknown orders and the external part counted, would exceed its limit", "several alphas on one instrument", "nothing at the limit; else lower the alphas' limits";
    LossSpeedReached = 223, "the alpha lost its limit within a minute", "a fast market or a broken alpha", "review; the alpha stays halted for the session";
    AccountDailyLossReached = 224, "loss of the day over all alphas reached the account's limit", "losing day", "review; every alpha stays halted for the session";
    AccountDrawdownReached = 225, "drawdown of the account from the session's peak reached its limit", "losing streak", "review; every alpha stays halted for the session";
    AccountLossSpeedReached = 226, "the account lost its limit within a minute", "a fast market or a broken alpha", "review; every alpha stays halted for the session";
    MarginTooLow = 227, "free margin behind this order would be below its limit", "too much size for the account", "pay in, or close positions";
    MarginUnknown = 228, "the broker's margin answer is missing or too old", "the account query fails or is slow", "check the broker connection; opening orders wait";
    RepeatedExecution = 229, "too many fills on one side in a short window; that side pauses", "an alpha run over, or a looping one", "review the alpha; the pause ends by itself";
    ClockSkewAboveLimit = 230, "our clock and the exchange's are too far apart on the last book", "a clock that runs off, a delayed feed", "check time synchronisation and the feed";
    PriceOutsideBand = 231, "price outside the exchange's dynamic price band", "fast markets, thin books", "nothing if rare";
    InstrumentClosed = 232, "the instrument is closed for trading", "suspended contracts and stocks", "nothing, or correct its eligibility";
    DayTradeNotAllowed = 233, "the instrument may not be bought and sold on one day", "stocks without day-trade eligibility", "do not assign an intraday alpha to it";
    DispositionStock = 234, "the exchange put the instrument under disposition: matched in intervals, prepaid", "after abnormal trading", "nothing until the exchange lifts it";
    OrderToTradeAboveLimit = 235, "too many requests for the fills of the session", "a quoting alpha that is never filled", "quote less often, or raise the limit within the exchange's";
    OrderQtyAboveExchangeCap = 236, "more lots than the exchange takes in one order", "limits above the exchange's", "check the alpha's limits";
    UnknownRateAboveLimit = 237, "too many orders with unknown outcome in a short window", "broker connection trouble", "find the cause; the breaker closes by itself";
    PositionUnreconciled = 238, "the broker's net position differs from ours and nothing in flight explains it", "manual orders, a lost fill", "find the difference, then adopt it or correct it; reduce-only until then";
    CancelNotAllowed = 239, "the exchange takes no cancel in this phase", "the last minutes before an open", "nothing; the order is canceled when the phase ends";
    ExitWaitsForCancel = 240, "an exit waits until our own resting order in its way is canceled", "two alphas on one instrument", "nothing; it goes out with the cancel's answer";

    StormGuardOn = 241, "the storm guard is at STORM: no order that opens a position", "after one of its inputs passed its threshold", "hft-live status names the input; it calms by itself";
    StormDrawdown = 242, "the account fell from its best result by more than a part of its risk capital", "losing day", "review; a halt by it cannot be resumed while the fall remains";
    StormFeedGap = 243, "no market record came while the market was open", "feed or connection down", "check the feed";
    StormLoopLag = 244, "the runtime's loop is late", "an overloaded machine", "free the machine; find what blocks the loop";
    StormOrderRtt = 245, "requests are answered late, or not at all", "broker or network trouble", "check the connection and open orders";
    StormRejectRate = 246, "too many rejects or unknown outcomes", "broker, limits or clock trouble", "find the cause in the broker events";
    StormPositionDrift = 247, "the broker reports another position than ours, or cannot be asked", "lost events, manual orders", "reconcile";
    StormFeatureFailures = 248, "signals stopped being numbers on good books", "an expression or feature at fault", "check the alpha's expression";
    StormNormaliserFailures = 249, "payloads of the feed could not be read", "another version of the feed", "check the feed's version; see the dropped payloads";
    KernelStatus = 250, "a kernel returned a status that is not 0, so there is no value", "warm-up, a case the kernel does not cover", "nothing in warm-up; else read what the kernel's status means";
    KernelNotFinite = 251, "a kernel wrote NaN or infinity, or nothing", "warm-up, division by zero", "nothing in warm-up; else check the kernel";

    OrderUnknown = 301, "a broker event names an order we do not know", "manual orders, a lost log", "reconcile";
    OrderStateInvalid = 302, "a broker event does not fit the order's state", "late or doubled callbacks", "nothing if rare";
    OverFill = 303, "more was filled than ordered", "doubled fill", "halt and reconcile";
    DuplicateFill = 304, "this fill was already counted", "doubled callback", "nothing";
    OrderOutcomeUnknown = 305, "an order's outcome is not known", "timeouts, lost replies", "it counts as exposure; the broker is asked";
    IntentExpired = 306, "the intent's time to live passed before dispatch", "slow dispatcher", "nothing if rare";
    CapacityReached = 307, "a bounded table is full", "too many open orders", "review the strategy";
    OddLotFill = 308, "a fill was no whole number of lots; what is left below one lot cannot be closed by an order", "partial fills of odd size", "close the remainder by hand after the session";
    FillTooOld = 309, "a fill is so far back that it cannot be told from a double", "a broker that repeats very old reports", "reduce-only until reconciled; then resume";
    ResumeNotArmed = 310, "the second step of a resume names no arm, or another one", "a wrong or used token, or a halt in between", "arm again, then confirm that arm";
    ResumeTooLate = 311, "the second step of a resume came too late", "waiting too long between the steps", "arm again, then confirm in time";
    HaltCauseRemains = 312, "what halted is still there", "a resume before the cause was removed", "remove the cause: hft-live status names it";
    IntentMalformed = 313, "an intent from outside the engine is not one it can take", "a Python strategy with a wrong alpha, side, price, quantity, cause or time to live", "correct the strategy; the record was dropped and counted";
    GatewayNotLeader = 314, "this gateway does not hold the leader lease, so it sends nothing", "a standby, or a leader that lost its lease", "nothing; the leader sends";
    GatewayFenced = 315, "another gateway took the lease over while this one held on to it", "a hung leader, a replaced lease file", "nothing; it ends itself, the new leader goes on";
    GatewayHung = 316, "the leader's heartbeat stopped and it was ended by the standby", "a stopped or overloaded process", "find what stopped it; start it again as the standby";
    ChannelUnreachable = 317, "the gateway's intent channel cannot be reached", "no gateway running, a takeover", "start the gateway; open orders of the runner are unknown until it answers";
    ChannelFull = 318, "more intents wait for the gateway than its channel may hold", "a slow broker, a runner in a loop", "nothing if rare; the intent was refused";
    ChannelProtocol = 319, "a message on the intent channel is not one the gateway can take", "another version, a foreign process", "use one version on both sides";
    IntentAbandoned = 320, "an order of unknown outcome was not found at the broker twice, so it is given up; it is never sent again", "a crash or a lost request between log and broker", "nothing; the strategy may decide anew";
    PositionDrift = 321, "the broker's position is not ours", "manual orders, lost fills", "hft-live reconcile; then adopt it or flatten";
    PositionUnanswered = 322, "the broker could not be asked for its positions, which does not mean flat", "a failed query", "nothing if rare; reduce-only until it answers";
    OrderExternal = 323, "the broker holds an order that is none of ours", "an order entered by hand or by another program", "cancel it at the broker, or leave it: it counts as external";
    RequestNotSent = 324, "the request was taken back before the broker was called", "a halt, a lost lease or a closed session between decision and call", "nothing; the order never left";
    SessionUnexplained = 325, "the session ended with orders, fills or positions that are not explained", "unresolved outcomes", "hft-live reconcile; see the report in the session folder";
    PositionNotFlat = 326, "a session closed with a position that was to be flat", "exits that were not filled before the close", "hft-live status; close it by hand, or carry it knowingly";
    WorkspaceBusy = 327, "another live process trades this workspace", "a second start, an old process that still runs", "find it by its process id; one process trades a workspace";

    BrokerRejected = 401, "the broker or exchange refused the order", "as its message says", "see the message";
    NoBrokerCredentials = 402, "live mode needs broker credentials", "run --mode live without them", "set them up as docs/live.md says, or run --mode paper";
    LiveNotEnabled = 403, "live trading is off", "run --mode live without the explicit flag", "enable it knowingly, or run --mode paper";
    OrderNotFound = 404, "the broker was asked and does not know the order: the request never arrived", "a lost request", "nothing; the exposure is released and nothing is sent again";
    ExchangeBandExceeded = 405, "the exchange refused: the order's possible fill leaves the dynamic price band", "fast markets, thin books", "nothing if rare; check the price collar";
    BrokerUnreachable = 406, "the broker cannot be reached", "network or broker down", "nothing is sent; it is tried again as docs/live.md says";
    BrokerTimeout = 407, "the broker did not answer a request in time, so its outcome is unknown", "slow network or broker", "nothing; it counts as exposure and is asked for";
    BrokerAnswerUnreadable = 408, "the broker's answer to a request could not be read, so its outcome is unknown", "another SDK version, a damaged message", "nothing; it counts as exposure and is asked for";
    BrokerQueryFailed = 409, "a question to the broker failed", "network, maintenance, its own limits", "nothing if rare; it is asked again";
    BrokerRateSpent = 410, "our own budget of broker calls is used up; the rest is kept for cancels", "bursts", "nothing; raise the limits only within the broker's";
    BrokerBreakerOpen = 411, "the broker failed several times in a row, so nothing that opens is sent for a while", "an outage", "nothing; it closes by itself when calls succeed";
    BrokerLoginFailed = 412, "the broker refused the login", "a wrong or revoked key, an unsigned account, maintenance", "see the message; the next try is a minute away at the earliest";
    BrokerLoginSpent = 413, "the budget of logins of the day is used up", "a restart loop", "find what restarts; raise broker.logins_per_day_max knowingly";
    CertificateMissing = 414, "orders need the broker's certificate and there is none", "no file, or its password is wrong", "set the two variables as docs/live.md says";
    CertificateExpired = 415, "the broker's certificate has expired", "a year passed", "renew it at the broker";
    CertificateExpiring = 416, "the broker's certificate expires soon", "a year is nearly over", "renew it at the broker";
    SubscriptionLimit = 417, "more quotes are wanted than the broker lets one connection subscribe", "too many instruments", "trade fewer instruments in one process";
    OrderFieldInvalid = 418, "a field of an order is none that the broker or the exchange takes", "a bug or a wrong setting", "see the message; nothing was sent";
    ContractUnknown = 419, "the broker knows no such contract", "a wrong symbol, an expired month, contracts not loaded", "check config/instruments against the broker";
    ContractMismatch = 420, "the broker's contract differs from the instruments file", "a changed multiplier, tick or last trading day", "correct the file; nothing is traded until it fits";
    AccountNotAllowed = 421, "the account is not among those that may be traded", "another login", "list it in broker.accounts knowingly";
    FeedSilent = 422, "no quote came for too long while the market is open", "a dead subscription, a lost connection", "it subscribes again by itself; look at the connection if it stays";
    ContractExpired = 423, "the contract's last trading day has passed", "an old config", "use the next contract";

    ConfigUnsigned = 501, "the promoted config has no signature", "hand-made file", "promote through the graph";
    ConfigSignatureInvalid = 502, "the signature does not match the content", "edited or damaged file", "promote again; find out who changed it";
    ConfigExpired = 503, "the promoted config is past its expiry", "old promotion", "promote again";
    ConfigKeyUnknown = 504, "signed with a key that is not pinned for this stage", "another workspace's key", "pin the key, or promote here";
    ConfigReplayed = 505, "sequence number is below one already seen", "an old file put back", "use the newest; find out who put it back";
    ConfigWrongInstrument = 506, "the config is for another instrument", "wrong file", "choose the right config";
    ConfigWrongStage = 507, "the config's stage does not permit this mode", "a shadow permit in live mode", "promote to that stage";
    ConfigMalformed = 508, "the config does not fit its schema", "hand-edited file", "promote again";
    ConfigEvidenceMismatch = 509, "a hash in the config does not match the alpha, code or evidence here", "code or data changed since", "run the gates again";
    ConfigNotFound = 510, "no promoted config there", "nothing promoted yet", "run the gates first";
    ConfigWithdrawn = 511, "the promotion was taken back", "canary or operator", "see the audit for why";
    ManifestInvalid = 512, "the alpha manifest does not fit its schema", "typo in the manifest", "correct the named field";
    UnknownFeature = 513, "the expression names a feature that does not exist", "typo in the expression", "use the suggestion or see docs/features.md";
    ExpressionInvalid = 514, "the expression cannot be parsed", "typo in the expression", "correct it at the position named";
    SettingsInvalid = 515, "a settings file does not fit its schema", "typo in config/", "correct the named field";
    KeyMissing = 516, "a key is missing", "fresh workspace or lost file", "make it as the message says";
    KeyPermissions = 517, "a key file is readable by others", "copied key", "chmod 600 the file";
    KeyRoleForbidden = 518, "this key may not sign that stage", "automatic key for live", "make a promotion key by hand and pin it";
    RollNotPermitted = 519, "the position would be carried over a contract roll", "roll day", "flatten before the roll";
    ConfigNotYetValid = 520, "the promoted config is not valid yet at this time", "a config run on records it was judged by", "use a config issued before the session, or wait";
    PromotionNotPermitted = 521, "a promotion asks for more than its evidence carries", "weight, stage or parameters that no verdict backs", "read the verdicts; ask for what they carry";
    KernelMissing = 522, "the config names a kernel whose text is not there", "a config without the kernel's text, an engine that was not given it", "use the config or session folder as it was written";
    KernelMismatch = 523, "a kernel of that name is another one: its source, compiler or CPU differs", "an edited kernel, a new numba, another machine", "replay with the versions named; what trades must pass the gates again";
    KernelMalformed = 524, "a kernel file breaks a rule of its form", "an import, a loop without a bound, sizes that do not fit", "change what the message names";
    KernelNotCompilable = 525, "a kernel cannot be compiled without falling back to Python objects", "a type that numba cannot infer, a Python object", "write it with floats, integers and arrays";
    KernelAllocates = 526, "a kernel allocates memory", "an array, list or string made in it", "keep numbers in its state";
    KernelCanRaise = 527, "a kernel can raise, leave its arrays or stop the process", "raise, assert, a write to what it may only read, an index or integer division that is not proven safe", "return a status; index with constants or range(len())";
    KernelCallsMath = 528, "a kernel calls a math library instead of the platform's functions", "math.exp, numpy.log, a power", "use hft_platform.kernels.math";
    KernelCallsOut = 529, "a kernel calls code that is not its own", "print, random numbers, a foreign function", "compute with what it is given";
    KernelNotDeterministic = 530, "a kernel holds an operation whose result depends on compiler or machine", "fast math, fused multiply-add, a float made an integer", "use plain arithmetic";
    ExternalNotPermitted = 531, "a plain Python strategy asks for what only an expression or a kernel gets", "a stage above shadow, a gate, an intent for another alpha", "use it for prototypes; write it as an expression or a kernel to have it judged";
    ClockWentBack = 532, "the wall clock is behind a time that this workspace has seen", "a clock set back, a wrong time source", "set the clock; a permit that has ended must not come back to life";
    PromotionNotApproved = 533, "the promotion lacks the approval of a second person", "two persons are required; nobody approved, or the author did", "hft-research approve, with the second person's key";

    WalTornTail = 601, "the log ended inside a frame and was cut there", "crash while writing", "nothing; unacknowledged records were lost";
    WalDamaged = 602, "valid frames follow a damaged one", "disk or memory damage, or an edit", "keep the file; hft-live wal verify";
    WalSegmentMismatch = 603, "a sealed segment does not match its footer or hash", "damage or an edit", "keep the file; restore it from a copy";
    WalSchemaMismatch = 604, "the segment was written by a record schema that is not kept here", "a newer version's file", "read it with the version named in its header";
    WalWriteFailed = 605, "writing or syncing the log failed", "disk full or broken", "halted; free space or replace the disk, then restart";
    StoreBusy = 606, "another process holds the embedded store", "two commands at once", "wait for it to end";
    StoreFailed = 607, "the store refused or did not answer", "server down, bad SQL", "see the message; the log keeps the data";
    LoadCountMismatch = 608, "the store holds another number of records than the segment", "a partial insert", "remove the rows of that run and segment (docs/store.md), then hft-live wal load";
    SegmentChanged = 609, "a segment changed after it was loaded or claimed", "edited file", "restore it from a copy";
    LogSequenceGap = 610, "the merged logs do not hold every input sequence once", "a lost segment", "find the segment; parity ends there";
    WalBusy = 611, "another writer holds the log or took it over", "two sessions on one folder, an old process", "wait for it to end, or find out which process it is";
    WalReadFailed = 612, "a log folder or file could not be read", "missing folder, permissions, a failing disk", "see the message; nothing was changed";
    MigrationChanged = 613, "an applied schema migration is not the one in the files", "an edited, deleted or renumbered SQL file", "restore the file; change the schema with a new migration";
    BusOverflow = 614, "a reader of the bus was lapped by its publisher", "a monitor or a Python strategy slower than the records", "nothing if rare; the reader counts what it lost, the log has everything";
    StoreUnreachable = 615, "no connection to the store, or it broke before anything was changed", "server down, restarting, wrong address", "start the server or correct store.dsn; the log keeps the data, the next load goes on";
    StoreTimeout = 616, "the store did not answer a question in time", "server overloaded, network", "look at the server; raise store.request_timeout_ms if it is only slow";
    StoreAmbiguous = 617, "a statement was sent and no answer came: applied or not is unknown", "a reply lost, a server killed inside an insert", "run the command again: loading settles it by token and by counting";
    StoreRefused = 618, "the store understood the statement and refused it", "bad SQL, a wrong type, no such table, wrong password", "see the message; correct schema, version or login";
    StoreOverloaded = 619, "the store is too busy to take the statement", "too many parts, too many queries, out of memory", "wait for its merges, give it memory, or load less at a time";
    StoreBreakerOpen = 620, "the store was not asked, because it failed several times in a row", "an outage that lasts", "nothing; it is asked again after store.breaker_open_ms";
    StoreNeedsServer = 621, "the embedded store serves one process, and several would use it", "recorder mode direct or several loaders without a server", "set HFT_STORE__DSN to a server, or use one loader with mode wal_first";
    DiskSpaceWarn = 622, "space on the log's disk is below its warning level, or will be soon", "a disk that fills", "free space now; nothing is restricted yet (docs/disk-pressure.md)";
    DiskSpaceCritical = 623, "space on the log's disk is critical: instruments are reduce-only, market data is shed", "a disk that fills", "free space; reduce-only stays until a halt is resumed or the session ends";
    DiskSpaceHalt = 624, "no space is left for the log: trading is halted", "a full disk", "free space, then hft-live resume";
    ShedInvalid = 625, "a SHED record does not fit the log: another hole than it names, or its instrument was not reduce-only", "a bug, a lost segment, or an edit", "no evidence from this session; report it with the session folder";
    ShedNotPermitted = 626, "records were to be shed whose instrument is not reduce-only in the engine and on disk", "a bug", "nothing was shed; report it with the session folder";
    LogOrderBroken = 627, "sequences of a log are not contiguous, or its input sequence does not rise", "a segment of another log in the folder, or damage", "hft-live wal verify the log; restore the segment";
    SegmentMissing = 628, "a segment between two others of its log is in no folder and in no manifest", "a deleted or moved file", "restore the file, then hft-live wal load";
    RecordDoubled = 629, "the store holds a record of the log more than once", "rows inserted by hand or under another token", "remove the rows of that run and segment (docs/store.md), then hft-live wal load";
    ViewMismatch = 630, "a materialized view does not hold what its table holds", "an insert cut short long ago, or a view changed by hand", "rebuild the view's rows of that run and day (docs/store.md)";
    DeduplicationOff = 631, "a table would not notice an insert that comes twice", "a table or view made by hand, a changed setting", "set the table's deduplication window as the message says";
    ManifestMismatch = 632, "a log's manifest and its segments disagree", "a replaced, lost or foreign file", "restore the segment that the manifest names";
    WalSalvaged = 633, "the log was salvaged: records are missing from it", "hft-live wal salvage was swapped in after damage", "it is no evidence; salvage.json says what is missing";
    BackupMismatch = 634, "a backup is unfinished, or a file in it is not the one that was backed up", "an interrupted backup, damage or an edit", "nothing was restored; take another backup";

    GateThresholdMissed = 701, "a statistic missed its threshold", "most alphas", "read the verdict";
    GateInsufficientEvidence = 702, "too few sessions or trades to decide", "short recordings", "collect as many days as the verdict says";
    GateNotComputed = 703, "a gate could not be computed, so it has failed", "missing data or a crash in the alpha's code", "see the verdict's reason";
    CostExceedsEdge = 704, "costs are larger than the edge's upper bound", "takers on small edges", "do not trade it";
    UpstreamVerdictMissing = 705, "the verdict a gate builds on is missing", "gates run out of order", "run the earlier gate";
    UpstreamVerdictFailed = 706, "the verdict a gate builds on did not pass", "gates run after a failure", "read the earlier verdict";
    VerdictTampered = 707, "a verdict file does not match its hash", "an edited file", "run the gate again; find out who changed it";
    VerdictStale = 708, "a verdict was made by other code, data or thresholds", "changed since", "run the gate again";
    LookAheadFound = 709, "the signal changes when the future is removed", "look-ahead", "correct the alpha";
    PlaceboPassed = 710, "a placebo of the alpha looked as good", "a leak or an artefact", "find the leak";
    LedgerBehindAudit = 711, "the trial ledger holds less than a verdict says it held", "a deleted ledger", "restore it";
    AuditBroken = 712, "the audit chain does not verify", "an edited, lost or reordered entry", "restore the chain; promotions are blocked";
    CanaryMetricMissing = 713, "a canary metric is missing, so it failed", "lost summaries", "find the summary";
    CanaryLossBudget = 714, "the canary lost more than its budget", "the edge died", "rolled back by itself; review";
    CanaryEdgeLost = 715, "the canary's sequential test rejected the promised edge", "the edge died", "rolled back by itself; review";
    CanaryParityBroken = 716, "a canary session did not replay identically", "a bug or a damaged log", "rolled back by itself; report it";
    CanaryExecutionDegraded = 717, "slippage or reject rate of the canary is out of its band", "market or broker changed", "rolled back by itself; review";
    CorrelationAboveLimit = 718, "too similar to an alpha already in the pool", "a variant of the same idea", "do not add it";
    ShadowSessionsTooFew = 719, "too few signed shadow sessions", "a young alpha", "run more shadow sessions";
    ParityBroken = 720, "a replay decided differently from the session", "a bug, a damaged log or other code", "no evidence from this session; see the parity report";
    SummaryTampered = 721, "a session summary does not match its hash or signature", "an edited file", "no evidence from this session; find out who changed it";
    SessionShed = 722, "a session shed market data for want of space, so it cannot be replayed whole", "a full disk", "no evidence from this session; run it again";
    ThresholdsNotRecorded = 723, "thresholds are not the ones that the audit chain holds", "a threshold changed without a record", "hft-research audit thresholds --why, or put the file back";
    VerdictNotRecorded = 724, "the audit chain holds another verdict, or none, for this gate", "a verdict file made by hand or put back", "run the gate again; find out who put it there";
    SessionsMissing = 725, "a dataset lacks sessions that its calendar held between its first and its last", "a recorder that was off, or days left out because they went badly", "ingest them, or state why there is no recording in config/data_exceptions.yaml";
    DataRestated = 726, "a session was ingested before with other records, or was never entered in the ingestion's book", "recordings that were revised or edited after the fact", "judge by the first recording, or state why it was replaced in config/data_exceptions.yaml";
    ReceiveTimeInvalid = 727, "a record's receive time cannot be when it was received: before its event, or long after", "a recorder's clock, or rows filled in afterwards", "ingest the recording as it was received";
    NotFrontContract = 728, "a session's contract is not the one that the roll rule trades on that day", "a continuous series under the name of one contract", "record each contract under its own name";
    FillTooEarly = 729, "a simulated fill came before its order could have been at the exchange", "fills on the tick that caused them, latency left out", "no evidence from this run; correct the backtest";

    InvariantBroken = 901, "one of our own invariants does not hold", "a bug", "report it with the session folder";
}

impl ReasonCode {
    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ordered_and_without_a_gap_inside_a_family() {
        for pair in REASON_ROWS.windows(2) {
            let (a, b) = (pair[0].code, pair[1].code);
            assert!(
                b == a + 1 || (b / 100 > a / 100 && b % 100 == 1),
                "{a} then {b}"
            );
        }
        for row in REASON_ROWS {
            assert_eq!(
                ReasonCode::from_code(row.code).map(ReasonCode::code),
                Some(row.code)
            );
            assert!(!row.meaning.is_empty());
            assert!(!row.seen_when.is_empty());
            assert!(!row.operator_does.is_empty());
        }
    }
}
