"""What the file looks like, and how an older one becomes so."""

from sqlite3 import Connection

from proxy.errors import JobsUnavailable

#: Says of a file that it is ours: "jobs".
APPLICATION = 0x6A6F6273

JOBS = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,    -- grows with each job: the order of age
    id TEXT NOT NULL UNIQUE,
    caller TEXT NOT NULL,
    state TEXT NOT NULL,
    rank INTEGER NOT NULL,      -- of its priority; the lowest goes first
    turn INTEGER NOT NULL,      -- within the rank; the lowest goes first
    due REAL,                   -- running: when its lease ends; queued: when it may be claimed, NULL for now
    fence INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    deadline REAL,
    keep REAL NOT NULL,
    expires_at REAL,
    batch TEXT,
    key TEXT,
    fingerprint TEXT NOT NULL,
    status INTEGER,
    content_type TEXT,
    error TEXT NOT NULL DEFAULT '',
    progress TEXT NOT NULL DEFAULT '',
    about TEXT NOT NULL
);
CREATE INDEX jobs_line ON jobs (rank, turn, seq) WHERE state = 'queued' AND due IS NULL;
CREATE INDEX jobs_flows ON jobs (rank, caller, turn) WHERE state = 'queued';
CREATE INDEX jobs_due ON jobs (due) WHERE due IS NOT NULL;
CREATE INDEX jobs_deadlines ON jobs (deadline) WHERE state = 'queued' AND deadline IS NOT NULL;
CREATE INDEX jobs_ends ON jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_running ON jobs (seq) WHERE state = 'running';
CREATE INDEX jobs_of_callers ON jobs (caller, seq) WHERE batch IS NULL;
CREATE INDEX jobs_of_batches ON jobs (batch, seq);
CREATE UNIQUE INDEX jobs_keys ON jobs (caller, key) WHERE key IS NOT NULL;

-- Apart from the jobs, whose rows are written anew at every move.
CREATE TABLE bodies (job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE, bytes BLOB NOT NULL);
CREATE TABLE answers (job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE, bytes BLOB NOT NULL);

-- The greatest turn that was claimed of each rank.
CREATE TABLE turns (rank INTEGER PRIMARY KEY, turn INTEGER NOT NULL);

CREATE TABLE total (jobs INTEGER NOT NULL);
INSERT INTO total VALUES (0);
CREATE TRIGGER jobs_come AFTER INSERT ON jobs BEGIN UPDATE total SET jobs = jobs + 1; END;
CREATE TRIGGER jobs_go AFTER DELETE ON jobs BEGIN UPDATE total SET jobs = jobs - 1; END;

-- How many may be claimed of each rank, so that nobody has to count them.
CREATE TABLE waiting (rank INTEGER PRIMARY KEY, jobs INTEGER NOT NULL);
CREATE TRIGGER jobs_wait AFTER INSERT ON jobs WHEN NEW.state = 'queued' AND NEW.due IS NULL BEGIN
    INSERT INTO waiting VALUES (NEW.rank, 1) ON CONFLICT (rank) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER jobs_move AFTER UPDATE OF state, due ON jobs
WHEN (OLD.state = 'queued' AND OLD.due IS NULL) <> (NEW.state = 'queued' AND NEW.due IS NULL) BEGIN
    UPDATE waiting SET jobs = jobs + iif(NEW.state = 'queued' AND NEW.due IS NULL, 1, -1) WHERE rank = NEW.rank;
END;
CREATE TRIGGER jobs_leave AFTER DELETE ON jobs WHEN OLD.state = 'queued' AND OLD.due IS NULL BEGIN
    UPDATE waiting SET jobs = jobs - 1 WHERE rank = OLD.rank;
END;

CREATE TABLE files (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    caller TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    is_whole INTEGER NOT NULL,
    created REAL NOT NULL,
    expires_at REAL,
    about TEXT NOT NULL
);
CREATE INDEX files_of_callers ON files (caller, seq);
CREATE TABLE parts (
    file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
    number INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (file, number)
);

CREATE TABLE batches (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    caller TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    deadline REAL,
    expires_at REAL,
    output_file TEXT,
    error_file TEXT,
    errors TEXT NOT NULL,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    times TEXT NOT NULL,
    about TEXT NOT NULL
);
CREATE INDEX batches_of_callers ON batches (caller, seq);
"""

#: Each makes of a file of the version before it one of the next; the first begins with an empty file.
MIGRATIONS = (JOBS,)


def check(connection: Connection) -> None:
    """Raises JobsUnavailable for a file that is not ours, or newer than we are, before anything is changed in it."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise JobsUnavailable("it is a database of another program: choose another file")
    if version_of(connection) > len(MIGRATIONS):
        raise JobsUnavailable("a newer version of this service has written it: start that one, or choose another file")


def migrate(connection: Connection) -> None:
    """Bring the file to the newest version, each step whole or not at all."""
    for number in range(version_of(connection), len(MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; "
            f"PRAGMA application_id = {APPLICATION}; COMMIT;"
        )


def version_of(connection: Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
