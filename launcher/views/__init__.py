"""What people see: tables, messages, questions, columns."""
