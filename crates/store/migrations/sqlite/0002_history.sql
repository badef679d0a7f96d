-- Schema version 2: the history of one object is found without reading that of all others.

CREATE INDEX change_log_object ON change_log (cp, kind, id, revision);
