"""Where records are kept: SQLite or PostgreSQL, behind `luban_app.house.records.RecordStore`."""
