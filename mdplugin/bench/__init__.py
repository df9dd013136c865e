"""`mdplugin bench`: options -> cases -> child processes that time them -> results (JSON) -> tables."""
