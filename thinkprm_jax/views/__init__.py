"""What programs show: tables on a terminal, pictures, files of figures. No library package imports this one."""
